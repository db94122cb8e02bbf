// Operations that make one element of many, in float32 and in the order of the input.
#pragma once

#include "conv.h"

template <class F>
inline void with_reduction(int64_t op, F run) {
    switch (op) {
        case 1: return run([](float a, float x) { return std::min(a, x); });
        case 2: return run([](float a, float x) { return std::max(a, x); });
        default: return run([](float a, float x) { return a + x; });  // mean (0) and sum (3)
    }
}

inline void reduce(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const int64_t op = arguments.number();
    const Shape si = arguments.shape(), so = arguments.shape();
    const float init = arguments.real();
    Shape step = strides_of(so);
    for (int i = 0; i < 4; ++i)
        if (so[i] == 1) step[i] = 0;
    const float* x = in.floats();
    float* y = out.floats();
    std::fill_n(y, product(so), init);
    with_reduction(op, [&](auto f) {
        for (int64_t n = 0; n < si[0]; ++n)
            for (int64_t c = 0; c < si[1]; ++c)
                for (int64_t h = 0; h < si[2]; ++h)
                    for (int64_t w = 0; w < si[3]; ++w) {
                        float& to = y[n * step[0] + c * step[1] + h * step[2] + w * step[3]];
                        to = f(to, *x++);
                    }
    });
    if (op == 0) {
        const float part = static_cast<float>(product(so)) / product(si);
        for (int64_t i = 0; i < product(so); ++i) y[i] *= part;
    }
}

inline void reduce_window2d(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const int64_t op = arguments.number();
    conv::Geometry g{arguments.shape(), 0, 0, {}, {}, 0, 0, 0, 0, 0, 0};
    conv::read_window(arguments, g);
    const float init = arguments.real();
    const FloatRange act = arguments.float_range();
    const int64_t height = g.in[2], width = g.in[3], out_h = g.out_h(), out_w = g.out_w();
    const float* map = in.floats();
    float* y = out.floats();
    with_reduction(op, [&](auto f) {
        for (int64_t m = 0; m < g.in[0] * g.in[1]; ++m, map += height * width)
            for (int64_t oy = 0; oy < out_h; ++oy)
                for (int64_t ox = 0; ox < out_w; ++ox) {
                    const int64_t top = oy * g.stride_h - g.pad_h.before, left = ox * g.stride_w - g.pad_w.before;
                    const auto rows = conv::inside(top, g.dilation_h, height, g.kernel_h);
                    const auto columns = conv::inside(left, g.dilation_w, width, g.kernel_w);
                    float value = init;
                    for (int64_t ky = rows.first; ky < rows.second; ++ky)
                        for (int64_t kx = columns.first; kx < columns.second; ++kx)
                            value = f(value, map[(top + ky * g.dilation_h) * width + left + kx * g.dilation_w]);
                    const int64_t taps = (rows.second - rows.first) * (columns.second - columns.first);
                    if (op == 0) value /= static_cast<float>(taps);
                    *y++ = act.clamp(value);
                }
    });
}

inline void softmax(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const int64_t inner = arguments.number(), outer = arguments.number();
    const float beta = arguments.real();
    for (int64_t row = 0; row < outer; ++row) {
        const float* x = in.floats() + row * inner;
        float* y = out.floats() + row * inner;
        const float most = *std::max_element(x, x + inner);
        float sum = 0.0f;
        for (int64_t i = 0; i < inner; ++i) sum += y[i] = std::exp((x[i] - most) * beta);
        for (int64_t i = 0; i < inner; ++i) y[i] /= sum;
    }
}
