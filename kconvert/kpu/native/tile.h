// The inner loop of all convolutions: weighted sums at many places at once, in float32.
//
// Integers go through it too: a sum of 256 products of numbers from -255 to 255 is below 2^24 and so exact.
#pragma once

#include "program.h"

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vectors = 4;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, vectors = 3;
#else
constexpr int vector_bytes = 16, vectors = 3;
#endif

typedef float floats __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
typedef int64_t longs __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
typedef uint64_t unsigned_longs __attribute__((vector_size(vector_bytes), aligned(8), may_alias));

#if defined(__GNUC__) && !defined(__clang__)
#define FUSED [[gnu::noinline, gnu::optimize("O3", "fp-contract=fast")]]
#else
#define FUSED
#endif

constexpr int lanes = vector_bytes / 4;
constexpr int tile_size = lanes * vectors;  // places
constexpr int block = 4;                    // output channels; simulator.py packs weights by this number
constexpr int exact_taps = 256;

// sums[c][i] += weights[k][c] * x[offsets[k] + i] for all k, in order.
template <int channels>
[[gnu::always_inline]] inline void accumulate(const float* x, const int32_t* offsets, int64_t taps,
                                              const float* weights, float* sums) {
    floats acc[channels][vectors];
    for (int c = 0; c < channels; ++c)
        for (int v = 0; v < vectors; ++v) acc[c][v] = *reinterpret_cast<floats*>(sums + c * tile_size + v * lanes);
    for (int64_t k = 0; k < taps; ++k) {
        floats in[vectors];
        for (int v = 0; v < vectors; ++v) in[v] = *reinterpret_cast<const floats*>(x + offsets[k] + v * lanes);
        for (int c = 0; c < channels; ++c)
            for (int v = 0; v < vectors; ++v) acc[c][v] += weights[k * channels + c] * in[v];
    }
    for (int c = 0; c < channels; ++c)
        for (int v = 0; v < vectors; ++v) *reinterpret_cast<floats*>(sums + c * tile_size + v * lanes) = acc[c][v];
}

// Sums of float32: every product and every sum is rounded.
inline void float_tile(int channels, const float* x, const int32_t* offsets, int64_t taps, const float* weights,
                       float* sums) {
    if (channels == 1) accumulate<1>(x, offsets, taps, weights, sums);
    else accumulate<block>(x, offsets, taps, weights, sums);
}

// Sums of integers, of which nothing is lost: here products and sums may be fused.
template <int channels>
FUSED void exact_tile(const float* x, const int32_t* offsets, int64_t taps, const float* weights, int32_t* sums) {
    for (int64_t k = 0; k < taps; k += exact_taps) {
        float part[channels * tile_size] = {};
        accumulate<channels>(x, offsets + k, std::min<int64_t>(exact_taps, taps - k), weights + k * channels, part);
        for (int i = 0; i < channels * tile_size; ++i) sums[i] = (k ? sums[i] : 0) + static_cast<int32_t>(part[i]);
    }
}

inline void integer_tile(int channels, const float* x, const int32_t* offsets, int64_t taps, const float* weights,
                         int32_t* sums) {
    if (channels == 1) exact_tile<1>(x, offsets, taps, weights, sums);
    else exact_tile<block>(x, offsets, taps, weights, sums);
}

// Weights as simulator.py packs them: [group][block of output channels][tap][channel of the block].
struct Packed {
    const float* weights;
    int64_t groups, per_group, taps;

    int width() const { return per_group == 1 ? 1 : block; }
    int64_t blocks() const { return (per_group + width() - 1) / width(); }
    const float* at(int64_t group, int64_t b) const { return weights + (group * blocks() + b) * taps * width(); }
};
