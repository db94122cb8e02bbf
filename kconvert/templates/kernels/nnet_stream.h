// Tensors as streams: a word holds the channels of one position (all axes but the last), and positions follow each other
// in row-major order.
#ifndef NNET_STREAM_H_
#define NNET_STREAM_H_

#include "hls_stream.h"
#include "nnet_common.h"

#ifndef KCONVERT_CSIM
#define NNET_TRACE_STREAM(index, words, stream)
#endif

namespace nnet {

template <class T, unsigned N> struct word {
    lanes<T> data[N];
};

// The elements of the next word; X has all values of T
template <class X, class T, unsigned N> void take(hls::stream<word<T, N>> &from, X x[]) {
#pragma HLS INLINE
#ifdef KCONVERT_CSIM
    const word<T, N> &next = from.next();
#else
    const word<T, N> next = from.read();
#endif
Channels:
    for (unsigned c = 0; c < N; c++) {
#pragma HLS UNROLL
        x[c] = next.data[c];
    }
}

// One more word
template <class Y, class T, unsigned N> void give(const Y y[], hls::stream<word<T, N>> &to) {
#pragma HLS INLINE
#ifdef KCONVERT_CSIM
    word<T, N> &next = to.slot();
#else
    word<T, N> next;
#endif
Channels:
    for (unsigned c = 0; c < N; c++) {
#pragma HLS UNROLL
        next.data[c] = y[c];
    }
#ifndef KCONVERT_CSIM
    to.write(next);
#endif
}

// `WORDS` words as one array
template <unsigned WORDS, class T, unsigned N> void collect(hls::stream<word<T, N>> &from, lanes<T> x[]) {
Words:
    for (unsigned w = 0; w < WORDS; w++) {
        NNET_STREAM_PIPELINE(1)
        take(from, x + w * N);
    }
}

// An array as `WORDS` words
template <unsigned WORDS, class T, unsigned N> void emit(const lanes<T> y[], hls::stream<word<T, N>> &to) {
Words:
    for (unsigned w = 0; w < WORDS; w++) {
        NNET_STREAM_PIPELINE(1)
        give(y + w * N, to);
    }
}

// `WORDS` words as they are, in another type
template <unsigned WORDS, class T, class U, unsigned N>
void pass(hls::stream<word<T, N>> &from, hls::stream<word<U, N>> &to) {
Words:
    for (unsigned w = 0; w < WORDS; w++) {
        NNET_STREAM_PIPELINE(1)
        lanes<T> x[N];
#pragma HLS ARRAY_PARTITION variable=x complete
        take(from, x);
        give(x, to);
    }
}

// A tensor of `SIZE` elements in words of another size: in blocks of the larger word where that is a multiple of the
// smaller one, else as a whole.
template <unsigned SIZE, class T, unsigned N, unsigned M>
void repack(hls::stream<word<T, N>> &from, hls::stream<word<T, M>> &to) {
    const unsigned block = N % M == 0 ? N : M % N == 0 ? M : SIZE;
    lanes<T> x[block];
#pragma HLS ARRAY_PARTITION variable=x complete
Blocks:
    for (unsigned b = 0; b < SIZE / block; b++) {
        collect<block / N>(from, x);
        emit<block / M>(x, to);
    }
}

template <class WORD> void write_each(const WORD &) {
#pragma HLS INLINE
}

template <class WORD, class... REST>
void write_each(const WORD &next, hls::stream<WORD> &to, REST &...rest) {
#pragma HLS INLINE
    to.write(next);
    write_each(next, rest...);
}

// Every word to each of several readers
template <unsigned WORDS, class WORD, class... STREAMS> void clone(hls::stream<WORD> &from, STREAMS &...to) {
Words:
    for (unsigned w = 0; w < WORDS; w++) {
        NNET_STREAM_PIPELINE(1)
        const WORD next = from.read();
        write_each(next, to...);
    }
}

// ***** windows *****

// What a window sees of an image whose pixels arrive one by one: the last rows, and the window itself, which moves a
// column to the right with each pixel. CONFIG_T as for nnet_conv.h; rows and columns count from the padding's corner.
template <class CONFIG_T, class X> struct line_buffer {
    static const unsigned height = CONFIG_T::kernel_height;
    static const unsigned width = CONFIG_T::kernel_width;
    static const unsigned channels = CONFIG_T::channels;
    // as far as the image reaches, or the last window
    static const unsigned used_rows = (CONFIG_T::out_height - 1) * CONFIG_T::stride_height + height;
    static const unsigned used_columns = (CONFIG_T::out_width - 1) * CONFIG_T::stride_width + width;
    static const unsigned image_rows = CONFIG_T::pad_top + CONFIG_T::in_height;
    static const unsigned image_columns = CONFIG_T::pad_left + CONFIG_T::in_width;
    static const unsigned rows = used_rows > image_rows ? used_rows : image_rows;
    static const unsigned columns = used_columns > image_columns ? used_columns : image_columns;

    X lines[height > 1 ? height - 1 : 1][columns][channels];
    X window[height * width * channels];

    line_buffer() {
#pragma HLS ARRAY_PARTITION variable=lines complete dim=1
#pragma HLS ARRAY_RESHAPE variable=lines complete dim=3
#pragma HLS ARRAY_PARTITION variable=window complete
    }

    // The pixel `x` of this column of the newest row comes in.
    void push(const X x[], unsigned column) {
#pragma HLS INLINE
    Rows:
        for (unsigned kr = 0; kr < height; kr++) {
#pragma HLS UNROLL
            X *const seen = window + kr * width * channels;
        Shift:
            for (unsigned i = 0; i < (width - 1) * channels; i++) {
#pragma HLS UNROLL
                seen[i] = seen[i + channels];
            }
        Channels:
            for (unsigned c = 0; c < channels; c++) {
#pragma HLS UNROLL
                const X next = kr + 1 < height ? lines[kr < height - 1 ? kr : 0][column][c] : x[c];
                seen[(width - 1) * channels + c] = next;
                if (kr > 0) {
                    lines[kr - 1][column][c] = next;
                }
            }
        }
    }

    // Whether a window ends in this row, or column.
    static bool ends(unsigned at, unsigned size, unsigned stride, unsigned windows) {
#pragma HLS INLINE
        return at + 1 >= size && (at + 1 - size) % stride == 0 && (at + 1 - size) / stride < windows;
    }
};

// One column of one row: the pixel, zeros where there is only padding, and the result of the window that ends there.
template <class CONFIG_T, class LAYER, class X, class T, unsigned N, class U, unsigned M, class... PARAMETERS>
void slide_on(unsigned row, unsigned column, line_buffer<CONFIG_T, X> &buffer, hls::stream<word<T, N>> &from,
              hls::stream<word<U, M>> &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
    typedef line_buffer<CONFIG_T, X> image;
    X x[N];
#pragma HLS ARRAY_PARTITION variable=x complete
    if (row >= CONFIG_T::pad_top && row < image::image_rows && column >= CONFIG_T::pad_left &&
        column < image::image_columns) {
        take(from, x);
    } else {
    Padding:
        for (unsigned c = 0; c < N; c++) {
#pragma HLS UNROLL
            x[c] = T(0);
        }
    }
    buffer.push(x, column);
    if (image::ends(row, image::height, CONFIG_T::stride_height, CONFIG_T::out_height) &&
        image::ends(column, image::width, CONFIG_T::stride_width, CONFIG_T::out_width)) {
        lanes<U> y[M];
#pragma HLS ARRAY_PARTITION variable=y complete
        LAYER::of(buffer.window, (row + 1 - image::height) / CONFIG_T::stride_height,
                  (column + 1 - image::width) / CONFIG_T::stride_width, y, parameters...);
        give(y, to);
    }
}

template <strategy S> struct sliding;

// A new pixel comes in every `INTERVAL` cycles.
template <> struct sliding<latency> {
    template <class CONFIG_T, class LAYER, unsigned INTERVAL, class T, unsigned N, class TO, class... PARAMETERS>
    static void run(hls::stream<word<T, N>> &from, TO &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
        typedef line_buffer<CONFIG_T, lanes<T>> image;
        image buffer;
    Rows:
        for (unsigned row = 0; row < image::rows; row++) {
        Columns:
            for (unsigned column = 0; column < image::columns; column++) {
                NNET_STREAM_PIPELINE(INTERVAL)
                slide_on<CONFIG_T, LAYER>(row, column, buffer, from, to, parameters...);
            }
        }
    }
};

template <> struct sliding<unrolled> : sliding<latency> {};

// Pixels follow each other; the pipeline is inside, over the cycles of one matrix.
template <> struct sliding<resource> {
    template <class CONFIG_T, class LAYER, unsigned INTERVAL, class T, unsigned N, class TO, class... PARAMETERS>
    static void run(hls::stream<word<T, N>> &from, TO &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
        typedef line_buffer<CONFIG_T, lanes<T>> image;
        image buffer;
    Rows:
        for (unsigned row = 0; row < image::rows; row++) {
        Columns:
            for (unsigned column = 0; column < image::columns; column++) {
                slide_on<CONFIG_T, LAYER>(row, column, buffer, from, to, parameters...);
            }
        }
    }
};

// y[r][c] = LAYER::of(what the window at (r, c) sees, r, c)
template <class CONFIG_T, class LAYER, strategy S, unsigned INTERVAL, class FROM, class TO, class... PARAMETERS>
void slide(FROM &from, TO &to, const PARAMETERS *...parameters) {
    sliding<S>::template run<CONFIG_T, LAYER, INTERVAL>(from, to, parameters...);
}

} // namespace nnet

#endif
