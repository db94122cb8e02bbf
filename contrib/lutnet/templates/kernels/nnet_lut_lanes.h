// Look-up tables in the simulation: all samples of a pack are looked up at once.
#ifndef NNET_LUT_LANES_H_
#define NNET_LUT_LANES_H_

#ifdef __AVX512VBMI__
#include <immintrin.h>
#endif

#include <cstdint>
#include <utility>

namespace nnet {

using bytes = csim::lanes_of<std::uint8_t>;  // one bit of each sample

template <unsigned N, int... I>
[[gnu::always_inline]] inline bytes lane_addresses(const bytes *const (&x)[N], std::integer_sequence<int, I...>) {
    return ((*x[I] << std::uint8_t(I)) | ...);
}

// Bit `index` of `table` for every lane.
template <class B> [[gnu::always_inline]] inline B table_bits(std::uint64_t table, const B &index) {
#ifdef __AVX512VBMI__
    if constexpr (sizeof(B) == 16) {  // the table fits one register, and one instruction reads it for every lane
        const __m512i entries = _mm512_maskz_set1_epi8(table, 1);
        return B(_mm512_castsi512_si128(_mm512_permutexvar_epi8(_mm512_castsi128_si512(__m128i(index)), entries)));
    }
#endif
    B out;
    for (int l = 0; l < csim::lanes; ++l) out[l] = table >> index[l] & 1;
    return out;
}

template <class CONFIG_T, class X, class Y> void luts(const X x[], Y y[]) {
    const auto *const tables = CONFIG_T::tables();
    const auto *wire = CONFIG_T::wires();
    static_assert(sizeof(X) == sizeof(bytes) && sizeof(Y) == sizeof(bytes), "a bit is kept in a byte");
    for (unsigned n = 0; n < CONFIG_T::units; ++n) {
        const bytes *wires[CONFIG_T::inputs];
        for (unsigned i = 0; i < CONFIG_T::inputs; ++i) wires[i] = &x[(wire++)->raw].raw;
        const bytes index = lane_addresses(wires, std::make_integer_sequence<int, CONFIG_T::inputs>());
        y[n].raw = table_bits(std::uint64_t(tables[n].raw), index);
    }
}

} // namespace nnet

#endif
