// Pooling over an image [in_height][in_width][channels]; padding is never part of a maximum or mean.
#ifndef NNET_POOL_H_
#define NNET_POOL_H_

#include "nnet_common.h"
#include "nnet_conv.h"
#include "nnet_mean.h"

namespace nnet {

// What is known of the elements of one channel so far: the largest
template <class CONFIG_T> struct pooled_maximum {
    lanes<typename CONFIG_T::input_t> best;
    bool first;

    pooled_maximum() : first(true) {}
    template <class X> void add(const X &x) {
#pragma HLS INLINE
        best = first ? x : max(best, x);
        first = false;
    }
    template <class Y> void result(Y &y) const {
#pragma HLS INLINE
        y = best;
    }
};

// ... or their sum; `reciprocal[n]` is 1 / n for every number of elements a window can see.
template <class CONFIG_T> struct pooled_mean {
    lanes<typename CONFIG_T::accum_t> accum;
    unsigned count;

    pooled_mean() : count(0) { accum = typename CONFIG_T::accum_t(0); }
    template <class X> void add(const X &x) {
#pragma HLS INLINE
        accum += x;
        count++;
    }
    template <class Y> void result(Y &y, const typename CONFIG_T::reciprocal_t reciprocal[]) const {
#pragma HLS INLINE
        y = mean<CONFIG_T>(accum, reciprocal[count]);
    }
};

// Which pixel of x the window sees as its (kr, kc), which is (r, c) from the padding's corner: x is the image,
template <class CONFIG_T> struct in_image {
    static unsigned pixel(unsigned r, unsigned c, unsigned, unsigned) {
#pragma HLS INLINE
        return (r - CONFIG_T::pad_top) * CONFIG_T::in_width + c - CONFIG_T::pad_left;
    }
};

// ... or what the window sees.
template <class CONFIG_T> struct in_window {
    static unsigned pixel(unsigned, unsigned, unsigned kr, unsigned kc) {
#pragma HLS INLINE
        return kr * CONFIG_T::kernel_width + kc;
    }
};

// All channels of the window at (row, column)
template <class CONFIG_T, class POOL, class PLACE, class X, class Y, class... PARAMETERS>
void pool_window(const X x[], unsigned row, unsigned column, Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
Channels:
    for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
        POOL seen;
    WindowRows:
        for (unsigned kr = 0; kr < CONFIG_T::kernel_height; kr++) {
#pragma HLS UNROLL
        WindowColumns:
            for (unsigned kc = 0; kc < CONFIG_T::kernel_width; kc++) {
#pragma HLS UNROLL
                const unsigned r = row * CONFIG_T::stride_height + kr;
                const unsigned c = column * CONFIG_T::stride_width + kc;
                if (inside<CONFIG_T>(r, c)) {
                    seen.add(x[PLACE::pixel(r, c, kr, kc) * CONFIG_T::channels + channel]);
                }
            }
        }
        seen.result(y[channel], parameters...);
    }
}

// y[r][c] = POOL of what the window at (r, c) sees of the image
template <class CONFIG_T, class POOL, class X, class Y, class... PARAMETERS>
void pool(const X x[], Y y[], const PARAMETERS *...parameters) {
Rows:
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
    Columns:
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
#pragma HLS PIPELINE II=1
            pool_window<CONFIG_T, POOL, in_image<CONFIG_T>>(
                x, row, column, y + (row * CONFIG_T::out_width + column) * CONFIG_T::channels, parameters...);
        }
    }
}

// For nnet::slide
template <class CONFIG_T, class POOL> struct pool_pixel {
    template <class X, class Y, class... PARAMETERS>
    static void of(const X patch[], unsigned row, unsigned column, Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
        pool_window<CONFIG_T, POOL, in_window<CONFIG_T>>(patch, row, column, y, parameters...);
    }
};

// The same of a window that is the whole image, pixel by pixel
template <class CONFIG_T, class POOL, class FROM, class TO, class... PARAMETERS>
void pool_all(FROM &from, TO &to, const PARAMETERS *...parameters) {
    POOL seen[CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=seen complete
Pixels:
    for (unsigned p = 0; p < CONFIG_T::in_height * CONFIG_T::in_width; p++) {
        NNET_STREAM_PIPELINE(1)
        lanes<typename CONFIG_T::input_t> x[CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=x complete
        take(from, x);
    Channels:
        for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
            seen[channel].add(x[channel]);
        }
    }
    lanes<typename CONFIG_T::result_t> y[CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=y complete
Results:
    for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
        seen[channel].result(y[channel], parameters...);
    }
    give(y, to);
}

} // namespace nnet

#endif
