// Planes: one bit of each of 512 samples. Layers that are logic on single bits read and write arrays of them.
#ifndef CSIM_PLANES_H
#define CSIM_PLANES_H

#include "bridge.h"

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

namespace csim {

typedef uint64_t plane __attribute__((vector_size(64)));
constexpr int packs_of_plane = 8 * sizeof(plane) / lanes;

// Whether a pack of T is one bit of each sample, in a byte.
template <class T> constexpr bool is_bit = T::width == 1 && !T::sign_flag && sizeof(pack<T>) == lanes && lanes == 16;

// Each of 16 bytes, 0 or 1, as a bit, and back.
[[gnu::always_inline]] inline uint16_t gather_bits(const lanes_of<uint8_t>& values) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return _mm_test_epi8_mask(__m128i(values), __m128i(values));
#else
    typedef uint64_t halves __attribute__((vector_size(16)));
    const halves found = halves(values) * 0x0102040810204080u >> 56;  // byte i goes to bit 56 + i, and nothing else there
    return uint16_t(found[0] | found[1] << 8);
#endif
}
[[gnu::always_inline]] inline lanes_of<uint8_t> spread_bits(uint16_t bits) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return lanes_of<uint8_t>(_mm_maskz_set1_epi8(bits, 1));
#else
    const lanes_of<uint8_t> place = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const lanes_of<uint8_t> low = splat<lanes_of<uint8_t>>(uint8_t(bits)), high = splat<lanes_of<uint8_t>>(uint8_t(bits >> 8));
    typedef uint64_t halves __attribute__((vector_size(16)));
    const halves both = {halves(low)[0], halves(high)[0]};
    return lanes_of<uint8_t>((lanes_of<uint8_t>(both) & place) != 0) & 1;
#endif
}

// The samples of pack `p` of those that a plane holds.
template <class T, unsigned long N> void to_planes(const pack<T> (&tensor)[N], int p, plane (&planes)[N]) {
    static_assert(is_bit<T>);
    for (unsigned long i = 0; i < N; ++i) {
        const uint16_t bits = gather_bits(tensor[i].raw);
        __builtin_memcpy(reinterpret_cast<char*>(planes + i) + sizeof(bits) * p, &bits, sizeof(bits));
    }
}
template <class T, unsigned long N> void from_planes(const plane (&planes)[N], int p, pack<T> (&tensor)[N]) {
    static_assert(is_bit<T>);
    for (unsigned long i = 0; i < N; ++i) {
        uint16_t bits;
        __builtin_memcpy(&bits, reinterpret_cast<const char*>(planes + i) + sizeof(bits) * p, sizeof(bits));
        tensor[i].raw = spread_bits(bits);
    }
}

}  // namespace csim

#endif
