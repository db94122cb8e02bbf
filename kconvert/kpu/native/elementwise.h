// Operations that make one element of one, or of two.
#pragma once

#include "program.h"

// Calls inner(out, a, b, count, step of a, step of b) for every row of the result.
template <class T, class Inner>
inline void broadcast(const T* a, const T* b, T* out, const Shape& sa, const Shape& sb, const Shape& so, Inner inner) {
    Shape ta = strides_of(sa), tb = strides_of(sb);
    for (int i = 0; i < 4; ++i) {
        if (sa[i] == 1) ta[i] = 0;
        if (sb[i] == 1) tb[i] = 0;
    }
    for (int64_t n = 0; n < so[0]; ++n)
        for (int64_t c = 0; c < so[1]; ++c)
            for (int64_t y = 0; y < so[2]; ++y, out += so[3])
                inner(out, a + n * ta[0] + c * ta[1] + y * ta[2], b + n * tb[0] + c * tb[1] + y * tb[2], so[3], ta[3],
                      tb[3]);
}

template <class F>
inline void with_binary(int64_t op, F run) {
    switch (op) {
        case 0: return run([](auto a, auto b) { return a + b; });
        case 1: return run([](auto a, auto b) { return a - b; });
        case 2: return run([](auto a, auto b) { return a * b; });
        case 3: return run([](auto a, auto b) { return a / b; });
        case 4: return run([](auto a, auto b) { return std::min(a, b); });
        default: return run([](auto a, auto b) { return std::max(a, b); });
    }
}

inline void binary(Arguments& arguments) {
    const Range a = arguments.range(), b = arguments.range(), out = arguments.range();
    const int64_t op = arguments.number();
    const Shape sa = arguments.shape(), sb = arguments.shape(), so = arguments.shape();
    const FloatRange act = arguments.float_range();
    with_binary(op, [&](auto f) {
        broadcast(a.floats(), b.floats(), out.floats(), sa, sb, so,
                  [&](float* o, const float* x, const float* y, int64_t count, int64_t dx, int64_t dy) {
                      for (int64_t i = 0; i < count; ++i) o[i] = act.clamp(f(x[i * dx], y[i * dy]));
                  });
    });
}

inline void quantized_binary(Arguments& arguments) {
    const Range a = arguments.range(), b = arguments.range(), out = arguments.range();
    const int64_t op = arguments.number();
    const Shape sa = arguments.shape(), sb = arguments.shape(), so = arguments.shape();
    int64_t in[2][256];  // what each value of an input is scaled to
    for (auto& table : in) {
        const int64_t offset = arguments.number(), mul = arguments.number(), shift = arguments.number();
        for (int64_t q = 0; q < 256; ++q) table[q] = rshift_up((q + offset) * mul, shift);
    }
    const int64_t offset = arguments.number(), mul = arguments.number(), shift = arguments.number();
    const auto scaled = [&](auto f) {
        broadcast(a.data, b.data, out.data, sa, sb, so,
                  [&](uint8_t* o, const uint8_t* x, const uint8_t* y, int64_t count, int64_t dx, int64_t dy) {
                      for (int64_t i = 0; i < count; ++i) {
                          const int64_t r = f(in[0][x[i * dx]], in[1][y[i * dy]]);
                          o[i] = clamp_u8(int64_t(rshift_up(wrapping_mul(r, mul), shift)) + offset);
                      }
                  });
    };
    if (op == 3)  // the quotient is rounded; what the runtime does with a divisor of 0 is not defined
        scaled([](int64_t x, int64_t y) { return y ? (x + y / 2) / y : 0; });
    else
        with_binary(op, scaled);
}

inline void quantize(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const float zero_point = static_cast<float>(arguments.number()), scale = arguments.real();
    const float* x = in.floats();
    for (int64_t i = 0; i < in.float_count(); ++i) {
        const float q = std::round(x[i] * scale + zero_point);
        out.data[i] = q >= 255.0f ? 255 : q > 0.0f ? static_cast<uint8_t>(q) : 0;  // not a number: 0
    }
}

inline void dequantize(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const int64_t zero_point = arguments.number();
    const float step = 1.0f / arguments.real();
    float table[256], *y = out.floats();
    for (int64_t q = 0; q < 256; ++q) table[q] = static_cast<float>(q - zero_point) * step;
    for (int64_t i = 0; i < in.size; ++i) y[i] = table[in.data[i]];
}

inline void table_lookup(Arguments& arguments) {
    const Range in = arguments.range(), table = arguments.range(), out = arguments.range();
    for (int64_t i = 0; i < in.size; ++i) out.data[i] = table.data[in.data[i]];
}

// ***** functions of one number *****

template <class F>
inline void with_unary(int64_t op, F run) {
    switch (op) {
        case 0: return run([](float x) { return std::fabs(x); });
        case 1: return run([](float x) { return std::ceil(x); });
        case 2: return run([](float x) { return std::cos(x); });
        case 3: return run([](float x) { return std::exp(x); });
        case 4: return run([](float x) { return std::floor(x); });
        case 5: return run([](float x) { return std::log(x); });
        case 6: return run([](float x) { return -x; });
        case 7: return run([](float x) { return 1.0f / std::sqrt(x); });
        case 8: return run([](float x) { return std::sin(x); });
        default: return run([](float x) { return x * x; });
    }
}

inline void unary(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const float* x = in.floats();
    float* y = out.floats();
    with_unary(arguments.number(), [&](auto f) {
        for (int64_t i = 0; i < in.float_count(); ++i) y[i] = f(x[i]);
    });
}

struct Instruction {
    int64_t op;
    double value;
};

// Runs byte code for up to `row` elements at once; the stack has a row for each number.
struct Stack {
    static constexpr int row = 64;
    float rows[64][row];
    int depth = 0;

    void push(float value) { std::fill_n(rows[depth++], row, value); }
    void step(const Instruction& instruction, const float* x) {
        float* top = rows[std::max(depth - 1, 0)];
        const int64_t op = instruction.op;
        if (op == 0x01) std::copy_n(top, row, rows[depth++]);
        else if (op == 0x02) --depth;
        else if (op == 0x03) std::copy_n(x, row, rows[depth++]);
        else if (op == 0x04) push(0.0f);
        else if (op == 0x05) push(1.0f);
        else if (op == 0x06) push(static_cast<float>(instruction.value));
        else if (op < 0x40) with_unary(op - 0x20, [&](auto f) { for (int i = 0; i < row; ++i) top[i] = f(top[i]); });
        else if (op < 0x80) {
            float* below = rows[--depth - 1];
            with_binary(op - 0x40, [&](auto f) { for (int i = 0; i < row; ++i) below[i] = f(below[i], top[i]); });
        } else {  // clamp
            depth -= 2;
            float* value = rows[depth - 1];
            for (int i = 0; i < row; ++i)
                value[i] = FloatRange{rows[depth][i], rows[depth + 1][i]}.clamp(value[i]);
        }
    }
};

inline void nnil_unary(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    const int64_t count = arguments.number();
    const Instruction* code = arguments.array<Instruction>();
    for (int64_t start = 0; start < in.float_count(); start += Stack::row) {
        const int64_t here = std::min<int64_t>(Stack::row, in.float_count() - start);
        float x[Stack::row] = {};
        std::copy_n(in.floats() + start, here, x);
        Stack stack;
        for (int64_t i = 0; i < count; ++i) stack.step(code[i], x);
        std::copy_n(stack.rows[stack.depth - 1], here, out.floats() + start);
    }
}
