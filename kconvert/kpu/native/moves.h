// Operations that only move elements, and scaling of images.
#pragma once

#include "program.h"

inline void memory_copy(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    std::memmove(out.data, in.data, in.size);
}

inline void concat(Arguments& arguments) {
    const Range out = arguments.range();
    const int64_t inner = arguments.number(), outer = arguments.number(), count = arguments.number();
    std::vector<Range> inputs;
    for (int64_t i = 0; i < count; ++i) inputs.push_back(arguments.range());
    const int32_t* dims = arguments.array<int32_t>();
    uint8_t* to = out.data;
    for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t bytes = dims[i] * inner;
            std::memmove(to, inputs[i].data + o * bytes, bytes);
            to += bytes;
        }
}

// out[i] = in[begin + i * step], in four dimensions, for elements of any size.
template <class T>
inline void gather(const T* in, T* out, const Shape& shape, const Shape& step) {
    for (int64_t n = 0; n < shape[0]; ++n)
        for (int64_t c = 0; c < shape[1]; ++c)
            for (int64_t y = 0; y < shape[2]; ++y) {
                const T* row = in + n * step[0] + c * step[1] + y * step[2];
                for (int64_t x = 0; x < shape[3]; ++x) *out++ = row[x * step[3]];
            }
}

inline void gather(const Range& in, const Range& out, int64_t itemsize, int64_t begin, const Shape& shape,
                   const Shape& step) {
    if (itemsize == 4)
        gather(reinterpret_cast<const uint32_t*>(in.data) + begin, reinterpret_cast<uint32_t*>(out.data), shape, step);
    else
        gather(in.data + begin, out.data, shape, step);
}

inline void transpose(Arguments& arguments) {
    const int64_t itemsize = arguments.number();
    const Range in = arguments.range(), out = arguments.range();
    const Shape from = arguments.shape(), perm = arguments.shape(), strides = strides_of(from);
    Shape shape, step;
    for (int i = 0; i < 4; ++i) shape[i] = from[perm[i]], step[i] = strides[perm[i]];
    gather(in, out, itemsize, 0, shape, step);
}

inline void strided_slice(Arguments& arguments) {
    const int64_t itemsize = arguments.number();
    const Range in = arguments.range(), out = arguments.range();
    const Shape strides = strides_of(arguments.shape());
    const Shape begin = arguments.shape(), end = arguments.shape(), by = arguments.shape();
    Shape shape, step;
    int64_t first = 0;
    for (int i = 0; i < 4; ++i) {
        const int64_t towards = by[i] > 0 ? by[i] - 1 : by[i] + 1;
        shape[i] = (end[i] - begin[i] + towards) / by[i];
        step[i] = by[i] * strides[i];
        first += begin[i] * strides[i];
    }
    gather(in, out, itemsize, first, shape, step);
}

template <class T>
inline void pad_maps(const T* in, T* out, const Shape& from, const std::array<Padding, 4>& pads, T value) {
    Shape to, strides = strides_of(from);
    for (int i = 0; i < 4; ++i) to[i] = from[i] + pads[i].before + pads[i].after;
    const int64_t low = std::clamp<int64_t>(pads[3].before, 0, to[3]);
    const int64_t high = std::clamp<int64_t>(pads[3].before + from[3], low, to[3]);
    for (int64_t n = 0; n < to[0]; ++n)
        for (int64_t c = 0; c < to[1]; ++c)
            for (int64_t y = 0; y < to[2]; ++y, out += to[3]) {
                const int64_t in_n = n - pads[0].before, in_c = c - pads[1].before, in_y = y - pads[2].before;
                std::fill_n(out, to[3], value);
                if (in_n < 0 || in_n >= from[0] || in_c < 0 || in_c >= from[1] || in_y < 0 || in_y >= from[2]) continue;
                const T* row = in + in_n * strides[0] + in_c * strides[1] + in_y * strides[2] - pads[3].before;
                std::copy(row + low, row + high, out + low);
            }
}

inline void pad(Arguments& arguments) {
    const int64_t itemsize = arguments.number();
    const Range in = arguments.range(), out = arguments.range();
    const Shape from = arguments.shape();
    std::array<Padding, 4> pads;
    for (auto& p : pads) p = arguments.padding();
    const uint32_t value = static_cast<uint32_t>(arguments.number());
    if (itemsize == 4)
        pad_maps(reinterpret_cast<const uint32_t*>(in.data), reinterpret_cast<uint32_t*>(out.data), from, pads, value);
    else
        pad_maps(in.data, out.data, from, pads, static_cast<uint8_t>(value));
}

// ***** scaling of images *****

template <class T>
inline void nearest(const T* in, T* out, const Shape& from, int64_t height, int64_t width) {
    const float scale_y = static_cast<float>(from[2]) / height, scale_x = static_cast<float>(from[3]) / width;
    std::vector<int64_t> columns(width);
    for (int64_t x = 0; x < width; ++x)
        columns[x] = std::min<int64_t>(static_cast<int64_t>(std::floor(x * scale_x)), from[3] - 1);
    for (int64_t map = 0; map < from[0] * from[1]; ++map, in += from[2] * from[3])
        for (int64_t y = 0; y < height; ++y) {
            const T* row = in + std::min<int64_t>(static_cast<int64_t>(std::floor(y * scale_y)), from[2] - 1) * from[3];
            for (int64_t x = 0; x < width; ++x) *out++ = row[columns[x]];
        }
}

inline float bilinear_scale(int64_t in, int64_t out, bool align_corners) {
    if (align_corners && out > 1) return static_cast<float>(in - 1) / (out - 1);
    return static_cast<float>(in) / out;
}

template <class T>
inline void bilinear(const T* in, T* out, const Shape& from, int64_t height, int64_t width, bool align_corners) {
    const float scale_y = bilinear_scale(from[2], height, align_corners);
    const float scale_x = bilinear_scale(from[3], width, align_corners);
    struct Column {
        int64_t left, right;
        float fraction;
    };
    std::vector<Column> columns(width);
    for (int64_t x = 0; x < width; ++x) {
        const float at = x * scale_x;
        const int64_t left = std::min<int64_t>(static_cast<int64_t>(std::floor(at)), from[3] - 1);
        columns[x] = {left, std::min(left + 1, from[3] - 1), at - left};
    }
    for (int64_t map = 0; map < from[0] * from[1]; ++map, in += from[2] * from[3])
        for (int64_t y = 0; y < height; ++y) {
            const float at = y * scale_y;
            const int64_t top = std::min<int64_t>(static_cast<int64_t>(std::floor(at)), from[2] - 1);
            const T *above = in + top * from[3], *below = in + std::min(top + 1, from[2] - 1) * from[3];
            const float fy = at - top;
            for (const auto& [left, right, fx] : columns)
                *out++ = static_cast<T>(above[left] * ((1 - fy) * (1 - fx)) + below[left] * (fy * (1 - fx)) +
                                        above[right] * ((1 - fy) * fx) + below[right] * (fy * fx));
        }
}

template <class T>
inline void resize(const T* in, T* out, const Shape& from, Arguments& arguments) {
    const int64_t height = arguments.number(), width = arguments.number();
    const int64_t mode = arguments.number();
    const bool align_corners = arguments.number() != 0;
    if (mode == 1) nearest(in, out, from, height, width);
    else bilinear(in, out, from, height, width, align_corners);
}

inline void resize_image(Arguments& arguments) {
    const int64_t itemsize = arguments.number();
    const Range in = arguments.range(), out = arguments.range();
    const Shape from = arguments.shape();
    if (itemsize == 4) resize(in.floats(), out.floats(), from, arguments);
    else resize(in.data, out.data, from, arguments);
}
