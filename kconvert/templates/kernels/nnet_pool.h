// Pooling over an image [in_height][in_width][channels]; padding is never part of a maximum or mean.
#ifndef NNET_POOL_H_
#define NNET_POOL_H_

#include "nnet_common.h"
#include "nnet_conv.h"
#include "nnet_mean.h"

namespace nnet {

// Largest element of channel `channel` under the window at (row, column).
template <class CONFIG_T, class X> X largest(const X x[], unsigned row, unsigned column, unsigned channel) {
#pragma HLS INLINE
    X best;
    bool first = true;
WindowRows:
    for (unsigned kr = 0; kr < CONFIG_T::kernel_height; kr++) {
#pragma HLS UNROLL
    WindowColumns:
        for (unsigned kc = 0; kc < CONFIG_T::kernel_width; kc++) {
#pragma HLS UNROLL
            const unsigned r = row * CONFIG_T::stride_height + kr;
            const unsigned c = column * CONFIG_T::stride_width + kc;
            if (inside<CONFIG_T>(r, c)) {
                const unsigned pixel = (r - CONFIG_T::pad_top) * CONFIG_T::in_width + c - CONFIG_T::pad_left;
                const X value = x[pixel * CONFIG_T::channels + channel];
                best = first ? value : max(best, value);
                first = false;
            }
        }
    }
    return best;
}

template <class CONFIG_T, class X, class Y> void max_pool(const X x[], Y y[]) {
Rows:
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
    Columns:
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
#pragma HLS PIPELINE II=1
        Channels:
            for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
                y[(row * CONFIG_T::out_width + column) * CONFIG_T::channels + channel] =
                    largest<CONFIG_T>(x, row, column, channel);
            }
        }
    }
}

// `reciprocal[n]` is 1 / n for every number of elements a window can see.
template <class CONFIG_T, class X, class Y>
void average_pool(const X x[], Y y[], const typename CONFIG_T::reciprocal_t reciprocal[]) {
Rows:
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
    Columns:
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
#pragma HLS PIPELINE II=1
        Channels:
            for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
                lanes<typename CONFIG_T::accum_t> accum = typename CONFIG_T::accum_t(0);
                unsigned count = 0;
            WindowRows:
                for (unsigned kr = 0; kr < CONFIG_T::kernel_height; kr++) {
#pragma HLS UNROLL
                WindowColumns:
                    for (unsigned kc = 0; kc < CONFIG_T::kernel_width; kc++) {
#pragma HLS UNROLL
                        const unsigned r = row * CONFIG_T::stride_height + kr;
                        const unsigned c = column * CONFIG_T::stride_width + kc;
                        if (inside<CONFIG_T>(r, c)) {
                            const unsigned pixel = (r - CONFIG_T::pad_top) * CONFIG_T::in_width + c - CONFIG_T::pad_left;
                            accum += x[pixel * CONFIG_T::channels + channel];
                            count++;
                        }
                    }
                }
                y[(row * CONFIG_T::out_width + column) * CONFIG_T::channels + channel] =
                    mean<CONFIG_T>(accum, reciprocal[count]);
            }
        }
    }
}

} // namespace nnet

#endif
