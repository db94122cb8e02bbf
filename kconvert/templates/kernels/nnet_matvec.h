// Matrix times vector: the one place where products are summed, and the order in which a layer applies it.
#ifndef NNET_MATVEC_H_
#define NNET_MATVEC_H_

#include "nnet_common.h"

#ifdef KCONVERT_CSIM
#include "matvec.h"
#endif

namespace nnet {

// What the products of one output are summed in, by product policy: in the accumulator, from the bias on.
template <class CONFIG_T, class A, class PRODUCT = typename CONFIG_T::product> struct summation {
    typedef A sum_t;

    static A start(const typename CONFIG_T::bias_t &bias) {
#pragma HLS INLINE
        return bias;
    }
    static A result(const A &sum, const typename CONFIG_T::bias_t &) {
#pragma HLS INLINE
        return sum;
    }
};

// Bits that count from 0 to n.
constexpr unsigned bits_to_count(unsigned n) { return n == 0 ? 0 : 1 + bits_to_count(n / 2); }

// Signs that agree are counted: c of n_in products are plus one step and the others minus one, so their sum is
// (2 c - n_in) steps. For accumulators that hold every sum, so that none is rounded on the way.
template <class CONFIG_T, class A, class VALUE> struct summation<CONFIG_T, A, product::xnor<VALUE>> {
    static const unsigned bits = bits_to_count(CONFIG_T::n_in);
    typedef lanes<ap_uint<bits>> sum_t;

    static sum_t start(const typename CONFIG_T::bias_t &) {
#pragma HLS INLINE
        return ap_uint<bits>(0);
    }
    static A result(const sum_t &sum, const typename CONFIG_T::bias_t &bias) {
#pragma HLS INLINE
        const ap_uint<bits> all = CONFIG_T::n_in;
        const lanes<ap_int<bits + 1>> steps = sum + sum - all;
        return bias + steps * (step<typename CONFIG_T::input_t>() * step<VALUE>());
    }
};

template <strategy S> struct accumulate;

// Every product has a multiplier of its own, or as many as the initiation interval of the caller leaves.
template <> struct accumulate<latency> {
    template <class CONFIG_T, class X, class W, class S> static void run(const X x[], const W weight[], S sum[]) {
#pragma HLS INLINE
    Outputs:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        Inputs:
            for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
                sum[o] += CONFIG_T::product::multiply(x[i], weight[i * CONFIG_T::n_out + o]);
            }
        }
    }
};

// `reuse_factor` cycles of n_in * n_out / reuse_factor multipliers, in the order in which the weights are stored, so
// that a block memory delivers one word a cycle. The products of one output are summed in the same order as above.
template <> struct accumulate<resource> {
    template <class CONFIG_T, class X, class W, class S> static void run(const X x[], const W weight[], S sum[]) {
        const unsigned per_cycle = CONFIG_T::n_in * CONFIG_T::n_out / CONFIG_T::reuse_factor;
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=per_cycle
    Cycles:
        for (unsigned cycle = 0; cycle < CONFIG_T::reuse_factor; cycle++) {
#pragma HLS PIPELINE II=1 rewind
        Multipliers:
            for (unsigned m = 0; m < per_cycle; m++) {
#pragma HLS UNROLL
                const unsigned k = cycle * per_cycle + m;
                sum[k % CONFIG_T::n_out] += CONFIG_T::product::multiply(x[k / CONFIG_T::n_out], weight[k]);
            }
        }
    }
};

// All products at once, of weights that are numbers in the logic and not the contents of a memory: a multiplier knows its
// factor, and a zero needs none. A reuse factor leaves only so many multipliers for those that are left.
template <> struct accumulate<unrolled> {
    template <class CONFIG_T, class X, class W, class S> static void run(const X x[], const W weight[], S sum[]) {
#pragma HLS INLINE
        const unsigned multipliers = (CONFIG_T::n_in * CONFIG_T::n_out + CONFIG_T::reuse_factor - 1) / CONFIG_T::reuse_factor;
#pragma HLS ARRAY_PARTITION variable=weight complete
#pragma HLS ALLOCATION operation instances=mul limit=multipliers
        accumulate<latency>::run<CONFIG_T>(x, weight, sum);
    }
};

// accum[o] = bias[o] + sum over i of x[i] * weight[i * n_out + o], each sum stored in the accumulator's type.
template <class CONFIG_T, class X, class A>
void matvec_in_order(const X x[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[],
                     A accum[]) {
#pragma HLS INLINE
    typedef summation<CONFIG_T, A> sums;
    typename sums::sum_t sum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=sum complete
Starts:
    for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        sum[o] = sums::start(bias[o]);
    }
    accumulate<CONFIG_T::strategy>::template run<CONFIG_T>(x, weight, sum);
Sums:
    for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        accum[o] = sums::result(sum[o], bias[o]);
    }
}

// The same for the one matrix of a layer
template <class CONFIG_T, class X, class A>
void matvec(const X x[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[], A accum[]) {
#pragma HLS INLINE
#ifdef KCONVERT_CSIM
    // The simulation may take over where it can sum faster and provably to the same bits.
    if (csim::try_matvec<CONFIG_T>(x, weight, bias, accum)) {
        return;
    }
#endif
    matvec_in_order<CONFIG_T>(x, weight, bias, accum);
}

// Call LAYER::at(p, ...) for every position p, `parallel` of them at the same time.
template <strategy S> struct schedule;

// New positions start every `reuse_factor` cycles.
template <> struct schedule<latency> {
    template <class CONFIG_T, class LAYER, class X, class Y, class W, class B>
    static void run(const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
    Positions:
        for (unsigned p = 0; p < CONFIG_T::positions; p += CONFIG_T::parallel) {
#pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        Together:
            for (unsigned q = 0; q < CONFIG_T::parallel; q++) {
#pragma HLS UNROLL
                LAYER::at(p + q, x, y, weight, bias);
            }
        }
    }
};

template <> struct schedule<unrolled> : schedule<latency> {};

// Positions follow each other; the pipeline is inside, over the cycles of one matrix.
template <> struct schedule<resource> {
    template <class CONFIG_T, class LAYER, class X, class Y, class W, class B>
    static void run(const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
    Positions:
        for (unsigned p = 0; p < CONFIG_T::positions; p += CONFIG_T::parallel) {
        Together:
            for (unsigned q = 0; q < CONFIG_T::parallel; q++) {
#pragma HLS UNROLL
                LAYER::at(p + q, x, y, weight, bias);
            }
        }
    }
};

} // namespace nnet

#endif
