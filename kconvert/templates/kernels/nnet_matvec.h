// Matrix times vector: the one place where products are summed, and the order in which a layer applies it.
#ifndef NNET_MATVEC_H_
#define NNET_MATVEC_H_

#include "nnet_common.h"

#ifdef KCONVERT_CSIM
#include "matvec.h"
#endif

namespace nnet {

template <strategy S> struct accumulate;

// Every product has a multiplier of its own, or as many as the initiation interval of the caller leaves.
template <> struct accumulate<latency> {
    template <class CONFIG_T, class X, class W, class A> static void run(const X x[], const W weight[], A accum[]) {
#pragma HLS INLINE
    Outputs:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        Inputs:
            for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
                accum[o] += CONFIG_T::product::multiply(x[i], weight[i * CONFIG_T::n_out + o]);
            }
        }
    }
};

// `reuse_factor` cycles of n_in * n_out / reuse_factor multipliers, in the order in which the weights are stored, so
// that a block memory delivers one word a cycle. The products of one output are summed in the same order as above.
template <> struct accumulate<resource> {
    template <class CONFIG_T, class X, class W, class A> static void run(const X x[], const W weight[], A accum[]) {
        const unsigned per_cycle = CONFIG_T::n_in * CONFIG_T::n_out / CONFIG_T::reuse_factor;
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=per_cycle
    Cycles:
        for (unsigned cycle = 0; cycle < CONFIG_T::reuse_factor; cycle++) {
#pragma HLS PIPELINE II=1 rewind
        Multipliers:
            for (unsigned m = 0; m < per_cycle; m++) {
#pragma HLS UNROLL
                const unsigned k = cycle * per_cycle + m;
                accum[k % CONFIG_T::n_out] += CONFIG_T::product::multiply(x[k / CONFIG_T::n_out], weight[k]);
            }
        }
    }
};

// accum[o] = bias[o] + sum over i of x[i] * weight[i * n_out + o], each sum stored in the accumulator's type.
template <class CONFIG_T, class X, class A>
void matvec(const X x[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[], A accum[]) {
#pragma HLS INLINE
#ifdef KCONVERT_CSIM
    // The simulation may take over where it can sum faster and provably to the same bits.
    if (csim::try_matvec<CONFIG_T>(x, weight, bias, accum)) {
        return;
    }
#endif
Bias:
    for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        accum[o] = bias[o];
    }
    accumulate<CONFIG_T::strategy>::template run<CONFIG_T>(x, weight, accum);
}

// Call LAYER::at(p, ...) for every position p.
template <strategy S> struct schedule;

// A new position starts every `reuse_factor` cycles.
template <> struct schedule<latency> {
    template <class CONFIG_T, class LAYER, class X, class Y, class W, class B>
    static void run(const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
    Positions:
        for (unsigned p = 0; p < CONFIG_T::positions; p++) {
#pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            LAYER::at(p, x, y, weight, bias);
        }
    }
};

// Positions follow each other; the pipeline is inside, over the cycles of one matrix.
template <> struct schedule<resource> {
    template <class CONFIG_T, class LAYER, class X, class Y, class W, class B>
    static void run(const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
    Positions:
        for (unsigned p = 0; p < CONFIG_T::positions; p++) {
            LAYER::at(p, x, y, weight, bias);
        }
    }
};

} // namespace nnet

#endif
