// Layers that move elements and compute nothing.
#ifndef NNET_SHAPE_H_
#define NNET_SHAPE_H_

#include "nnet_common.h"

namespace nnet {

// The same elements in another type.
template <unsigned SIZE, class X, class Y> void convert(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < SIZE; i++) {
#pragma HLS UNROLL
        y[i] = x[i];
    }
}

// Every element from its place in the input
template <class CONFIG_T, class X, class Y> void gather(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = x[CONFIG_T::place(i)];
    }
}

// Position `out` along an axis, if it holds a pixel: one stands at `pad`, and others every `spread` behind it.
inline bool holds_pixel(unsigned out, unsigned pad, unsigned spread, unsigned pixels) {
#pragma HLS INLINE
    return out >= pad && (out - pad) % spread == 0 && (out - pad) / spread < pixels;
}

// Zeros around and between the pixels of an image [in_height][in_width][channels].
template <class CONFIG_T, class X, class Y> void zero_padding(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Rows:
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
#pragma HLS UNROLL
    Columns:
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
#pragma HLS UNROLL
            const bool seen =
                holds_pixel(row, CONFIG_T::pad_top, CONFIG_T::spread_height, CONFIG_T::in_height) &&
                holds_pixel(column, CONFIG_T::pad_left, CONFIG_T::spread_width, CONFIG_T::in_width);
            const unsigned pixel = seen ? (row - CONFIG_T::pad_top) / CONFIG_T::spread_height * CONFIG_T::in_width +
                                              (column - CONFIG_T::pad_left) / CONFIG_T::spread_width
                                        : 0;
        Channels:
            for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
                const unsigned to = (row * CONFIG_T::out_width + column) * CONFIG_T::channels + channel;
                if (seen) {
                    y[to] = x[pixel * CONFIG_T::channels + channel];
                } else {
                    y[to] = typename CONFIG_T::result_t(0);
                }
            }
        }
    }
}

// The same for an image that comes and goes pixel by pixel
template <class CONFIG_T, class FROM, class TO> void zero_padding_stream(FROM &from, TO &to) {
Rows:
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
    Columns:
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
            NNET_STREAM_PIPELINE(1)
            lanes<typename CONFIG_T::input_t> x[CONFIG_T::channels];
#pragma HLS ARRAY_PARTITION variable=x complete
            if (holds_pixel(row, CONFIG_T::pad_top, CONFIG_T::spread_height, CONFIG_T::in_height) &&
                holds_pixel(column, CONFIG_T::pad_left, CONFIG_T::spread_width, CONFIG_T::in_width)) {
                take(from, x);
            } else {
            Channels:
                for (unsigned channel = 0; channel < CONFIG_T::channels; channel++) {
#pragma HLS UNROLL
                    x[channel] = typename CONFIG_T::input_t(0);
                }
            }
            give(x, to);
        }
    }
}

} // namespace nnet

#endif
