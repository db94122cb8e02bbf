// The program and the memories it works on.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

constexpr int64_t slack = 64;  // bytes behind a memory that vectors may read

using Memories = std::array<uint8_t*, 3>;
using Shape = std::array<int64_t, 4>;

struct Padding {
    int64_t before, after;
};

struct FloatRange {
    float low, high;
    float clamp(float x) const { return std::min(std::max(x, low), high); }
};

struct Range {
    uint8_t* data;
    int64_t size;  // bytes
    float* floats() const { return reinterpret_cast<float*>(data); }
    int64_t float_count() const { return size / 4; }
};

inline int64_t product(const Shape& s) { return s[0] * s[1] * s[2] * s[3]; }

inline Shape strides_of(const Shape& s) { return {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1}; }

// Gives the fields of a record, in the record's order.
class Arguments {
public:
    Arguments(const int64_t* program, const Memories& memories) : at(program), memories(memories) {}

    int64_t number() { return *at++; }
    float real() {
        double value;
        std::memcpy(&value, at++, sizeof value);
        return static_cast<float>(value);
    }
    Range range() {
        uint8_t* base = memories[at[0]];
        const Range found{base + at[1], at[2]};
        at += 3;
        return found;
    }
    Shape shape() {
        const Shape found{at[0], at[1], at[2], at[3]};
        at += 4;
        return found;
    }
    Padding padding() {
        const Padding found{at[0], at[1]};
        at += 2;
        return found;
    }
    FloatRange float_range() {
        const float low = real();
        return {low, real()};
    }
    template <class T>
    const T* array() {
        return reinterpret_cast<const T*>(static_cast<intptr_t>(number()));
    }

private:
    const int64_t* at;
    const Memories& memories;
};

// ***** integer arithmetic; overflow wraps *****

inline int64_t wrapping_mul(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

inline int64_t wrapping_add(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// (v + half) >> shift, as the quantised operations of the CPU round.
inline int32_t rshift_up(int64_t v, int64_t shift) {
    return static_cast<int32_t>(shift ? wrapping_add(v, int64_t(1) << (shift - 1)) >> shift : v);
}

inline uint8_t clamp_u8(int64_t v) { return static_cast<uint8_t>(std::clamp<int64_t>(v, 0, 255)); }

// Brings an accumulator to uint8.
struct Requantize {
    int64_t mul, shift, offset;
    uint8_t operator()(int32_t sum) const { return clamp_u8(int64_t(rshift_up(sum * mul, shift)) + offset); }
};
