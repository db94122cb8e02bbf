// An analog matrix multiplier in whole numbers: the sum of a chunk of inputs becomes a level of 8 bits, as its ADC does;
// the levels of all chunks are added, with one saturation at the end.
#ifndef NNET_ANALOG_H_
#define NNET_ANALOG_H_

#include "nnet_conv.h"
#include "nnet_matvec.h"

namespace nnet {
namespace analog {

// The part of the matrix for the inputs from FIRST on, as many as the multiplier has rows for.
template <class CONFIG_T, unsigned FIRST> struct chunk {
    static const unsigned rest = CONFIG_T::n_in - FIRST;
    static const unsigned n_in = rest < CONFIG_T::height ? rest : CONFIG_T::height;
    static const unsigned n_out = CONFIG_T::n_out;
    static const unsigned reuse_factor = CONFIG_T::reuse_factor;
    static const nnet::strategy strategy = CONFIG_T::strategy;
    typedef typename CONFIG_T::product product;
    typedef typename CONFIG_T::input_t input_t;
    typedef typename CONFIG_T::weight_t weight_t;
    typedef ap_uint<1> bias_t;
};

// The level of a sum: a short product comes to the right one or the one above it, and the first sum that has that one
// decides.
template <class CONFIG_T> lanes<typename CONFIG_T::level_t> level(const lanes<typename CONFIG_T::sum_t> &sum) {
#pragma HLS INLINE
    typedef typename CONFIG_T::level_t level_t;
    const lanes<level_t> nearest = sum * CONFIG_T::factor();
    const lanes<level_t> below = nearest - level_t(1);
    return select(sum < CONFIG_T::first_sum(nearest), below, nearest);
}

// total[o] += the level of the sum of each chunk from FIRST on
template <class CONFIG_T, unsigned FIRST = 0, bool MORE = (FIRST < CONFIG_T::n_in)> struct chunks {
    template <class X, class T> static void add(const X x[], const typename CONFIG_T::weight_t weight[], T total[]) {
#pragma HLS INLINE
        typedef chunk<CONFIG_T, FIRST> part;
        lanes<typename CONFIG_T::sum_t> sum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=sum complete
        typename part::bias_t zero[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=zero complete
    Zeros:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
            zero[o] = 0;
        }
        matvec<part>(x + FIRST, weight + FIRST * CONFIG_T::n_out, zero, sum);
    Levels:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
            total[o] += level<CONFIG_T>(sum[o]);
        }
        chunks<CONFIG_T, FIRST + CONFIG_T::height>::add(x, weight, total);
    }
};
template <class CONFIG_T, unsigned FIRST> struct chunks<CONFIG_T, FIRST, false> {
    template <class X, class T> static void add(const X[], const typename CONFIG_T::weight_t[], T[]) {
#pragma HLS INLINE
    }
};

// y = the matrix applied to x, plus the bias: two saturated sums
template <class CONFIG_T, class X, class Y>
void multiply(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
#pragma HLS INLINE
    lanes<typename CONFIG_T::total_t> total[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=total complete
Totals:
    for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        total[o] = typename CONFIG_T::total_t(0);
    }
    chunks<CONFIG_T>::add(x, weight, total);
Results:
    for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
        const lanes<typename CONFIG_T::level_t> product = total[o];
        const lanes<typename CONFIG_T::level_t> biased = product + bias[o];
        y[o] = biased;
    }
}

template <class CONFIG_T> struct dense_position {
    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        multiply<CONFIG_T>(x + p * CONFIG_T::n_in, y + p * CONFIG_T::n_out, weight, bias);
    }
};

template <class CONFIG_T, class X, class Y>
void dense(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, dense_position<CONFIG_T>>(x, y, weight, bias);
}

template <class CONFIG_T> struct conv_pixel {
    // What a window sees is taken channel by channel: the first chunk holds all positions of the first channels.
    template <class X, class Y, class W, class B>
    static void of(const X seen[], unsigned, unsigned, Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in];
#pragma HLS ARRAY_PARTITION variable=patch complete
    Inputs:
        for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
            patch[i] = seen[i % CONFIG_T::area * CONFIG_T::channels + i / CONFIG_T::area];
        }
        multiply<CONFIG_T>(patch, y, weight, bias);
    }

    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X seen[CONFIG_T::n_in];
#pragma HLS ARRAY_PARTITION variable=seen complete
        const unsigned row = p / CONFIG_T::out_width, column = p % CONFIG_T::out_width;
        window<CONFIG_T>(x, row, column, seen);
        of(seen, row, column, y + p * CONFIG_T::n_out, weight, bias);
    }
};

template <class CONFIG_T, class X, class Y>
void conv(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, conv_pixel<CONFIG_T>>(x, y, weight, bias);
}

// y = the entry of its channel's table at x
template <class CONFIG_T, class X, class Y>
void level_table(const X x[], Y y[], const typename CONFIG_T::entry_t entry[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = lookup(entry + i % CONFIG_T::channels * CONFIG_T::entries, x[i]);
    }
}

} // namespace analog
} // namespace nnet

#endif
