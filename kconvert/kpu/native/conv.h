// Convolutions and matrix products on the CPU.
#pragma once

#include "tile.h"

namespace conv {

struct Geometry {  // fields of the records, in order
    Shape in;
    int64_t groups, out_channels;
    Padding pad_h, pad_w;
    int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;

    static int64_t places(int64_t size, Padding pad, int64_t kernel, int64_t stride, int64_t dilation) {
        return (size + pad.before + pad.after - dilation * (kernel - 1) - 1) / stride + 1;
    }
    int64_t out_h() const { return places(in[2], pad_h, kernel_h, stride_h, dilation_h); }
    int64_t out_w() const { return places(in[3], pad_w, kernel_w, stride_w, dilation_w); }
};

inline void read_window(Arguments& arguments, Geometry& g) {
    g.pad_h = arguments.padding();
    g.pad_w = arguments.padding();
    for (int64_t* field : {&g.kernel_h, &g.kernel_w, &g.stride_h, &g.stride_w, &g.dilation_h, &g.dilation_w})
        *field = arguments.number();
}

// The smallest i >= 0 with begin + i * stride >= 0, and the one behind the last below size, of at most count.
inline std::pair<int64_t, int64_t> inside(int64_t begin, int64_t stride, int64_t size, int64_t count) {
    const int64_t low = begin < 0 ? (-begin + stride - 1) / stride : 0;
    const int64_t high = begin < size ? (size - begin + stride - 1) / stride : 0;
    return {std::min(low, count), std::clamp<int64_t>(high, std::min(low, count), count)};
}

// Collects what a filter sees at `tile_size` places from `first` on: columns[tap][place], 0 outside of the map.
template <class T>
inline void collect(const Geometry& g, const T* maps, int64_t channels, float offset, int64_t first, float* columns) {
    const int64_t height = g.in[2], width = g.in[3], out_w = g.out_w(), places = g.out_h() * out_w;
    const int64_t last = std::min(first + tile_size, places);
    std::fill(columns, columns + channels * g.kernel_h * g.kernel_w * tile_size, 0.0f);
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t ky = 0; ky < g.kernel_h; ++ky)
            for (int64_t kx = 0; kx < g.kernel_w; ++kx, columns += tile_size)
                for (int64_t place = first; place < last;) {  // one piece of an output row after the other
                    const int64_t oy = place / out_w, ox = place % out_w, count = std::min(out_w - ox, last - place);
                    const int64_t y = oy * g.stride_h - g.pad_h.before + ky * g.dilation_h;
                    const int64_t x = ox * g.stride_w - g.pad_w.before + kx * g.dilation_w;
                    if (y >= 0 && y < height) {
                        const T* row = maps + (c * height + y) * width;
                        const auto [low, high] = inside(x, g.stride_w, width, count);
                        for (int64_t i = low; i < high; ++i)
                            columns[place - first + i] = static_cast<float>(row[x + i * g.stride_w]) + offset;
                    }
                    place += count;
                }
}

// Calls compute(columns, weights, first channel, sums) and then store(sums, ...) for every tile of the result.
template <class T, class Sum, class Compute, class Store>
inline void run(const Geometry& g, const T* in, T* out, const Packed& packed, float offset, Compute compute,
                Store store) {
    const int64_t channels = g.in[1] / g.groups, places = g.out_h() * g.out_w();
    std::vector<float> columns(packed.taps * tile_size);
    std::vector<int32_t> offsets(packed.taps);
    for (int64_t k = 0; k < packed.taps; ++k) offsets[k] = static_cast<int32_t>(k * tile_size);
    for (int64_t n = 0; n < g.in[0]; ++n)
        for (int64_t group = 0; group < g.groups; ++group)
            for (int64_t first = 0; first < places; first += tile_size) {
                const T* maps = in + (n * g.in[1] + group * channels) * g.in[2] * g.in[3];
                collect(g, maps, channels, offset, first, columns.data());
                const int64_t count = std::min<int64_t>(tile_size, places - first);
                for (int64_t b = 0; b < packed.blocks(); ++b) {
                    Sum sums[block * tile_size];
                    const int64_t start = group * packed.per_group + b * packed.width();
                    const int64_t used = std::min<int64_t>(packed.width(), packed.per_group - b * packed.width());
                    compute(columns.data(), offsets.data(), packed.at(group, b), start, used, sums);
                    for (int64_t c = 0; c < used; ++c)
                        for (int64_t i = 0; i < count; ++i)
                            out[(n * g.out_channels + start + c) * places + first + i] =
                                store(sums[c * tile_size + i], start + c);
                }
            }
}

inline Packed read_packed(Arguments& arguments, const Geometry& g) {
    Packed packed{};
    packed.groups = g.groups;
    packed.per_group = g.out_channels / g.groups;
    packed.taps = g.in[1] / g.groups * g.kernel_h * g.kernel_w;
    packed.weights = arguments.array<float>();
    return packed;
}

}  // namespace conv

inline void conv2d(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    conv::Geometry g{arguments.shape(), 0, 0, {}, {}, 0, 0, 0, 0, 0, 0};
    g.groups = arguments.number();
    g.out_channels = arguments.number();
    conv::read_window(arguments, g);
    const FloatRange act = arguments.float_range();
    const Packed packed = conv::read_packed(arguments, g);
    const float* bias = arguments.array<float>();
    conv::run<float, float>(
        g, in.floats(), out.floats(), packed, 0.0f,
        [&](const float* x, const int32_t* offsets, const float* w, int64_t start, int64_t used, float* sums) {
            for (int64_t c = 0; c < packed.width(); ++c)
                std::fill_n(sums + c * tile_size, tile_size, c < used ? bias[start + c] : 0.0f);
            float_tile(packed.width(), x, offsets, packed.taps, w, sums);
        },
        [&](float sum, int64_t) { return act.clamp(sum); });
}

inline void quantized_conv2d(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    conv::Geometry g{arguments.shape(), 0, 0, {}, {}, 0, 0, 0, 0, 0, 0};
    g.groups = arguments.number();
    g.out_channels = arguments.number();
    conv::read_window(arguments, g);
    const float in_offset = static_cast<float>(arguments.number());
    arguments.number();  // that of the weights, which are packed with it
    const Requantize requantize{arguments.number(), arguments.number(), arguments.number()};
    const int32_t* bias = arguments.array<int32_t>();
    const Packed packed = conv::read_packed(arguments, g);
    conv::run<uint8_t, int32_t>(
        g, in.data, out.data, packed, in_offset,
        [&](const float* x, const int32_t* offsets, const float* w, int64_t, int64_t, int32_t* sums) {
            integer_tile(packed.width(), x, offsets, packed.taps, w, sums);
        },
        [&](int32_t sum, int64_t c) { return requantize(static_cast<int32_t>(wrapping_add(sum, bias[c]))); });
}

inline void conv2d_transpose(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    conv::Geometry g{arguments.shape(), 0, 0, {}, {}, 0, 0, 0, 0, 0, 0};
    const Shape so = arguments.shape();
    g.groups = arguments.number();
    conv::read_window(arguments, g);
    const FloatRange act = arguments.float_range();
    const float* weights = arguments.array<float>();
    const int64_t ic = g.in[1] / g.groups, oc = so[1] / g.groups, taps = g.kernel_h * g.kernel_w;
    const float* x = in.floats();
    float* result = out.floats();
    std::fill_n(result, product(so), 0.0f);
    for (int64_t n = 0; n < g.in[0]; ++n)
        for (int64_t c = 0; c < g.in[1]; ++c)
            for (int64_t y = 0; y < g.in[2]; ++y)
                for (int64_t xi = 0; xi < g.in[3]; ++xi, ++x)
                    for (int64_t o = 0; o < oc; ++o) {
                        const int64_t channel = c / ic * oc + o;
                        const float* w = weights + (channel * ic + c % ic) * taps;
                        for (int64_t k = 0; k < taps; ++k) {
                            const int64_t oy = y * g.stride_h - g.pad_h.before + k / g.kernel_w * g.dilation_h;
                            const int64_t ox = xi * g.stride_w - g.pad_w.before + k % g.kernel_w * g.dilation_w;
                            if (oy >= 0 && oy < so[2] && ox >= 0 && ox < so[3])
                                result[((n * so[1] + channel) * so[2] + oy) * so[3] + ox] += *x * w[k];
                        }
                    }
    for (int64_t i = 0; i < product(so); ++i) result[i] = act.clamp(result[i]);
}

// ***** matrix products *****

inline void matmul(Arguments& arguments) {
    const Range a = arguments.range(), b = arguments.range(), out = arguments.range();
    const int64_t rows = arguments.number(), depth = arguments.number(), columns = arguments.number();
    const FloatRange act = arguments.float_range();
    const float* bias = arguments.array<float>();
    std::vector<float> sums(columns);
    for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(bias, columns, sums.begin());
        for (int64_t k = 0; k < depth; ++k) {
            const float x = a.floats()[r * depth + k], *w = b.floats() + k * columns;
            for (int64_t c = 0; c < columns; ++c) sums[c] += x * w[c];
        }
        for (int64_t c = 0; c < columns; ++c) out.floats()[r * columns + c] = act.clamp(sums[c]);
    }
}

inline void quantized_matmul(Arguments& arguments) {
    const Range a = arguments.range(), b = arguments.range(), out = arguments.range();
    const int64_t rows = arguments.number(), depth = arguments.number(), columns = arguments.number();
    const int32_t a_offset = static_cast<int32_t>(arguments.number());
    const int32_t b_offset = static_cast<int32_t>(arguments.number());
    const Requantize requantize{arguments.number(), arguments.number(), arguments.number()};
    const int32_t* bias = arguments.array<int32_t>();
    std::vector<int32_t> sums(columns);
    for (int64_t r = 0; r < rows; ++r) {
        std::fill(sums.begin(), sums.end(), 0);
        for (int64_t k = 0; k < depth; ++k) {
            const int32_t x = a.data[r * depth + k] + a_offset;
            const uint8_t* w = b.data + k * columns;
            for (int64_t c = 0; c < columns; ++c) sums[c] += x * (w[c] + b_offset);
        }
        for (int64_t c = 0; c < columns; ++c)
            out.data[r * columns + c] = requantize(static_cast<int32_t>(wrapping_add(sums[c], bias[c])));
    }
}
