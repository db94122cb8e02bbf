// Convolution over an image [in_height][in_width][channels]; one dimension is an image of height 1.
#ifndef NNET_CONV_H_
#define NNET_CONV_H_

#include "nnet_matvec.h"

namespace nnet {

// True if row `r` and column `c`, counted from the padding's corner, lie inside the image.
template <class CONFIG_T> bool inside(unsigned r, unsigned c) {
#pragma HLS INLINE
    return r >= CONFIG_T::pad_top && r < CONFIG_T::pad_top + CONFIG_T::in_height && c >= CONFIG_T::pad_left &&
           c < CONFIG_T::pad_left + CONFIG_T::in_width;
}

// Copy what the window at (row, column) sees, zeros outside the image.
template <class CONFIG_T, class X> void window(const X x[], unsigned row, unsigned column, X patch[]) {
#pragma HLS INLINE
WindowRows:
    for (unsigned kr = 0; kr < CONFIG_T::kernel_height; kr++) {
#pragma HLS UNROLL
    WindowColumns:
        for (unsigned kc = 0; kc < CONFIG_T::kernel_width; kc++) {
#pragma HLS UNROLL
            const unsigned r = row * CONFIG_T::stride_height + kr;
            const unsigned c = column * CONFIG_T::stride_width + kc;
            const unsigned to = (kr * CONFIG_T::kernel_width + kc) * CONFIG_T::channels;
            const bool seen = inside<CONFIG_T>(r, c);
            const unsigned pixel = seen ? (r - CONFIG_T::pad_top) * CONFIG_T::in_width + c - CONFIG_T::pad_left : 0;
        Channels:
            for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
                if (seen) {
                    patch[to + channel] = x[pixel * CONFIG_T::channels + channel];
                } else {
                    patch[to + channel] = typename CONFIG_T::input_t(0);
                }
            }
        }
    }
}

template <class CONFIG_T> struct conv_pixel {
    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in];
#pragma HLS ARRAY_PARTITION variable=patch complete
        lanes<typename CONFIG_T::accum_t> accum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=accum complete
        window<CONFIG_T>(x, p / CONFIG_T::out_width, p % CONFIG_T::out_width, patch);
        matvec<CONFIG_T>(patch, weight, bias, accum);
    Results:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            y[p * CONFIG_T::n_out + f] = accum[f];
        }
    }
};

// y[r][c][f] = bias[f] + sum over the window and channels of x * weight; weights [height][width][channels][filters].
template <class CONFIG_T, class X, class Y>
void conv(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, conv_pixel<CONFIG_T>>(x, y, weight, bias);
}

template <class CONFIG_T> struct depthwise_pixel {
    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in * CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=patch complete
        window<CONFIG_T>(x, p / CONFIG_T::out_width, p % CONFIG_T::out_width, patch);
    Filters:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            typedef summation<CONFIG_T, lanes<typename CONFIG_T::accum_t>> sums;
            typename sums::sum_t sum = sums::start(bias[f]);
        Window:
            for (unsigned k = 0; k < CONFIG_T::n_in; k++) {
#pragma HLS UNROLL
                sum += CONFIG_T::product::multiply(patch[k * CONFIG_T::channels + f / CONFIG_T::depth_multiplier],
                                                   weight[k * CONFIG_T::n_out + f]);
            }
            y[p * CONFIG_T::n_out + f] = sums::result(sum, bias[f]);
        }
    }
};

// Every channel has depth_multiplier filters of its own; weights [height][width][channels * depth_multiplier].
template <class CONFIG_T, class X, class Y>
void depthwise_conv(const X x[], Y y[], const typename CONFIG_T::weight_t weight[],
                    const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, depthwise_pixel<CONFIG_T>>(x, y, weight, bias);
}

} // namespace nnet

#endif
