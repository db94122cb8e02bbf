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
            const unsigned r = row * CONFIG_T::stride_height + kr * CONFIG_T::dilation_height;
            const unsigned c = column * CONFIG_T::stride_width + kc * CONFIG_T::dilation_width;
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
    // The result of what a window sees, wherever it is.
    template <class X, class Y, class W, class B>
    static void of(const X patch[], unsigned, unsigned, Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        lanes<typename CONFIG_T::accum_t> accum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=accum complete
        matvec<CONFIG_T>(patch, weight, bias, accum);
    Results:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            y[f] = accum[f];
        }
    }

    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in];
#pragma HLS ARRAY_PARTITION variable=patch complete
        const unsigned row = p / CONFIG_T::out_width, column = p % CONFIG_T::out_width;
        window<CONFIG_T>(x, row, column, patch);
        of(patch, row, column, y + p * CONFIG_T::n_out, weight, bias);
    }
};

// y[r][c][f] = bias[f] + sum over the window and channels of x * weight; weights [height][width][channels][filters].
template <class CONFIG_T, class X, class Y>
void conv(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, conv_pixel<CONFIG_T>>(x, y, weight, bias);
}

template <class CONFIG_T> struct grouped_pixel {
    template <class X, class Y, class W, class B>
    static void of(const X patch[], unsigned, unsigned, Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        const unsigned group_channels = CONFIG_T::channels / CONFIG_T::groups;
    Groups:
        for (unsigned g = 0; g < CONFIG_T::groups; g++) {
#pragma HLS UNROLL
            X seen[CONFIG_T::n_in];
#pragma HLS ARRAY_PARTITION variable=seen complete
        Channels:
            for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
                seen[i] = patch[i / group_channels * CONFIG_T::channels + g * group_channels + i % group_channels];
            }
            lanes<typename CONFIG_T::accum_t> accum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=accum complete
            matvec_in_order<CONFIG_T>(seen, weight + g * CONFIG_T::n_in * CONFIG_T::n_out, bias + g * CONFIG_T::n_out, accum);
        Results:
            for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
                y[g * CONFIG_T::n_out + f] = accum[f];
            }
        }
    }

    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in * CONFIG_T::groups];
#pragma HLS ARRAY_PARTITION variable=patch complete
        const unsigned row = p / CONFIG_T::out_width, column = p % CONFIG_T::out_width;
        window<CONFIG_T>(x, row, column, patch);
        of(patch, row, column, y + p * CONFIG_T::n_out * CONFIG_T::groups, weight, bias);
    }
};

// Every group of channels has filters of its own; n_in and n_out are those of one group, and its matrix
// [height][width][channels][filters] follows that of the group before.
template <class CONFIG_T, class X, class Y>
void grouped_conv(const X x[], Y y[], const typename CONFIG_T::weight_t weight[],
                  const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, grouped_pixel<CONFIG_T>>(x, y, weight, bias);
}

// One product of a window with the filters of its channels: number k, in the order in which the weights are stored
template <class CONFIG_T, class X, class W>
auto depthwise_product(const X patch[], const W weight[], unsigned k)
    -> decltype(CONFIG_T::product::multiply(patch[0], weight[0])) {
#pragma HLS INLINE
    const unsigned f = k % CONFIG_T::n_out;
    return CONFIG_T::product::multiply(patch[k / CONFIG_T::n_out * CONFIG_T::channels + f / CONFIG_T::depth_multiplier],
                                       weight[k]);
}

template <strategy S> struct depthwise_sums {
    template <class CONFIG_T, class X, class Y, class W, class B>
    static void run(const X patch[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
    Filters:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            typedef summation<CONFIG_T, lanes<typename CONFIG_T::accum_t>> sums;
            typename sums::sum_t sum = sums::start(bias[f]);
        Window:
            for (unsigned k = 0; k < CONFIG_T::n_in; k++) {
#pragma HLS UNROLL
                sum += depthwise_product<CONFIG_T>(patch, weight, k * CONFIG_T::n_out + f);
            }
            y[f] = sums::result(sum, bias[f]);
        }
    }
};

// As accumulate<resource>: each filter's products are summed in the same order as above.
template <> struct depthwise_sums<resource> {
    template <class CONFIG_T, class X, class Y, class W, class B>
    static void run(const X patch[], Y y[], const W weight[], const B bias[]) {
        typedef summation<CONFIG_T, lanes<typename CONFIG_T::accum_t>> sums;
        const unsigned per_cycle = CONFIG_T::n_in * CONFIG_T::n_out / CONFIG_T::reuse_factor;
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=per_cycle
        typename sums::sum_t sum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=sum complete
    Starts:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            sum[f] = sums::start(bias[f]);
        }
    Cycles:
        for (unsigned cycle = 0; cycle < CONFIG_T::reuse_factor; cycle++) {
#pragma HLS PIPELINE II=1 rewind
        Multipliers:
            for (unsigned m = 0; m < per_cycle; m++) {
#pragma HLS UNROLL
                const unsigned k = cycle * per_cycle + m;
                sum[k % CONFIG_T::n_out] += depthwise_product<CONFIG_T>(patch, weight, k);
            }
        }
    Results:
        for (unsigned f = 0; f < CONFIG_T::n_out; f++) {
#pragma HLS UNROLL
            y[f] = sums::result(sum[f], bias[f]);
        }
    }
};

template <class CONFIG_T> struct depthwise_pixel {
    template <class X, class Y, class W, class B>
    static void of(const X patch[], unsigned, unsigned, Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        depthwise_sums<CONFIG_T::strategy>::template run<CONFIG_T>(patch, y, weight, bias);
    }

    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        X patch[CONFIG_T::n_in * CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=patch complete
        const unsigned row = p / CONFIG_T::out_width, column = p % CONFIG_T::out_width;
        window<CONFIG_T>(x, row, column, patch);
        of(patch, row, column, y + p * CONFIG_T::n_out, weight, bias);
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
