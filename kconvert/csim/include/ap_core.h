// The arithmetic of ap_fixed and ap_int, written once.
//
// A number is an integer `raw` of w bits; its value is raw * 2^-f with f = w - i. Every function here works on the raw
// integer alone, as a scalar (int8_t .. __int128, usable in constant expressions) or as a GCC/Clang vector of them, so
// the scalar types (ap_fixed.h, ap_int.h) and the packs of lanes (lanes.h) cannot differ.
//
// All conversions follow one rule: take the exact value, quantise it to the target's step, then apply the overflow rule.
#ifndef CSIM_AP_CORE_H
#define CSIM_AP_CORE_H

#include <cstdint>
#include <type_traits>

// Packs wider than the machine's vectors stay within one translation unit, so the calling convention that GCC and Clang
// warn about here does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#define CSIM_FN [[gnu::always_inline]] constexpr

enum ap_q_mode { AP_RND, AP_RND_ZERO, AP_RND_MIN_INF, AP_RND_INF, AP_RND_CONV, AP_TRN, AP_TRN_ZERO };
enum ap_o_mode { AP_SAT, AP_SAT_ZERO, AP_SAT_SYM, AP_WRAP, AP_WRAP_SM };

namespace csim {

using int128 = __int128;
using uint128 = unsigned __int128;

// ---- formats ----------------------------------------------------------------------------------------------------------

// All that is known of a number at compile time: w bits, i of them before the point (i may be negative or above w).
struct fmt {
    int w, i;
    bool s;
    ap_q_mode q = AP_TRN;
    ap_o_mode o = AP_WRAP;
    int n = 0;

    constexpr int f() const { return w - i; }
    constexpr bool wraps() const { return o == AP_WRAP && n == 0; }
    constexpr bool operator==(const fmt&) const = default;
};

constexpr int larger(int a, int b) { return a > b ? a : b; }

// Integer bits that hold both operands; an unsigned one gets a sign bit when the other is signed.
constexpr int common_int_bits(fmt a, fmt b) { return larger(a.i + (b.s && !a.s), b.i + (a.s && !b.s)); }
constexpr fmt from_int_and_fraction(int i, int f, bool s) { return {i + f, i, s}; }

constexpr fmt common_fmt(fmt a, fmt b) {  // also the result of & | ^
    return from_int_and_fraction(common_int_bits(a, b), larger(a.f(), b.f()), a.s || b.s);
}
constexpr fmt add_fmt(fmt a, fmt b) {
    return from_int_and_fraction(common_int_bits(a, b) + 1, larger(a.f(), b.f()), a.s || b.s);
}
constexpr fmt sub_fmt(fmt a, fmt b) {
    return from_int_and_fraction(common_int_bits(a, b) + 1, larger(a.f(), b.f()), true);
}
constexpr fmt mul_fmt(fmt a, fmt b) { return {a.w + b.w, a.i + b.i, a.s || b.s}; }
constexpr fmt div_fmt(fmt a, fmt b) { return {a.w + larger(b.f(), 0) + b.s, a.i + b.f() + b.s, a.s || b.s}; }
constexpr fmt neg_fmt(fmt a) { return {a.w + 1, a.i + 1, true}; }
constexpr fmt mod_fmt(fmt a, fmt b) {  // of whole numbers
    const int w = b.w + (a.s && !b.s);
    return {w < a.w ? w : a.w, w < a.w ? w : a.w, a.s};
}

// ---- representations: native integers and vectors of them ---------------------------------------------------------------

template <int Bits, bool S> struct int_of;
template <> struct int_of<8, true> { using type = std::int8_t; };
template <> struct int_of<8, false> { using type = std::uint8_t; };
template <> struct int_of<16, true> { using type = std::int16_t; };
template <> struct int_of<16, false> { using type = std::uint16_t; };
template <> struct int_of<32, true> { using type = std::int32_t; };
template <> struct int_of<32, false> { using type = std::uint32_t; };
template <> struct int_of<64, true> { using type = std::int64_t; };
template <> struct int_of<64, false> { using type = std::uint64_t; };
template <> struct int_of<128, true> { using type = int128; };
template <> struct int_of<128, false> { using type = uint128; };

constexpr int storage_bits(int w) { return w <= 8 ? 8 : w <= 16 ? 16 : w <= 32 ? 32 : w <= 64 ? 64 : 128; }

template <int W, bool S> struct storage_of {
    static_assert(W >= 1, "a number needs at least one bit");
    static_assert(W <= 128, "numbers wider than 128 bits are not supported (the exact result of an operation may be "
                            "wider than its operands: assign it to a narrower type first)");
    using type = typename int_of<storage_bits(W), S>::type;
};
template <int W, bool S> using storage = typename storage_of<W, S>::type;

template <class E, int N> struct vector_of { typedef E type __attribute__((vector_size(N * sizeof(E)))); };

template <class R> struct rep {  // a scalar
    using lane = R;
    template <class E> using like = E;
    static constexpr bool scalar = true;
};
template <class R>
    requires requires(const R& r) { r[0]; }
struct rep<R> {  // a vector
    using lane = std::remove_cvref_t<decltype(std::declval<R&>()[0])>;
    template <class E> using like = typename vector_of<E, sizeof(R) / sizeof(lane)>::type;
    static constexpr bool scalar = false;
};
template <class R> using lane_t = typename rep<R>::lane;
template <class R, class E> using like = typename rep<R>::template like<E>;  // the same number of lanes, of E
template <class R> constexpr int lane_bits = 8 * int(sizeof(lane_t<R>));
template <class R> constexpr bool lane_signed = lane_t<R>(-1) < lane_t<R>(0);

template <class E> constexpr bool is_whole = E(0.5) == E(0);  // an integer, also of 128 bits


#if defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(__clang__)
#define CSIM_AVX512_CONVERSIONS
// GCC 12 makes these conversions of 16 lanes in halves; each is one instruction.
using bytes = vector_of<char, 16>::type;
using shorts = vector_of<short, 16>::type;
using words = vector_of<int, 16>::type;
template <bool S> CSIM_FN auto resize(shorts, const bytes& r) {
    return S ? __builtin_ia32_pmovsxbw256_mask(r, shorts{}, -1) : __builtin_ia32_pmovzxbw256_mask(r, shorts{}, -1);
}
template <bool S> CSIM_FN auto resize(words, const bytes& r) {
    return S ? __builtin_ia32_pmovsxbd512_mask(r, words{}, -1) : __builtin_ia32_pmovzxbd512_mask(r, words{}, -1);
}
template <bool S> CSIM_FN auto resize(words, const shorts& r) {
    return S ? __builtin_ia32_pmovsxwd512_mask(r, words{}, -1) : __builtin_ia32_pmovzxwd512_mask(r, words{}, -1);
}
template <bool S> CSIM_FN auto resize(bytes, const shorts& r) { return __builtin_ia32_pmovwb256_mask(r, bytes{}, -1); }
template <bool S> CSIM_FN auto resize(bytes, const words& r) { return __builtin_ia32_pmovdb512_mask(r, bytes{}, -1); }
template <bool S> CSIM_FN auto resize(shorts, const words& r) { return __builtin_ia32_pmovdw512_mask(r, shorts{}, -1); }
template <int Bytes> using plain = std::conditional_t<Bytes == 1, bytes, std::conditional_t<Bytes == 2, shorts, words>>;
#endif

// Each lane converted to E as C++ converts numbers: the low bits of an integer, or its sign/zero extension.
template <class E, class R> CSIM_FN like<R, E> to(const R& r) {
    using From = lane_t<R>;
    constexpr int small = sizeof(E) < sizeof(From) ? sizeof(E) : sizeof(From);
    constexpr int large = sizeof(E) < sizeof(From) ? sizeof(From) : sizeof(E);
    constexpr bool whole = is_whole<E> && is_whole<From>;
    if constexpr (std::is_same_v<From, E>) return r;
    else if constexpr (rep<R>::scalar) return static_cast<E>(r);
    else if constexpr (whole && small == large) return reinterpret_cast<like<R, E>>(r);
#ifdef CSIM_AVX512_CONVERSIONS
    else if constexpr (whole && large <= 4 && sizeof(R) == 16 * sizeof(From)) {
        return reinterpret_cast<like<R, E>>(
            resize<lane_signed<R>>(plain<sizeof(E)>{}, reinterpret_cast<const plain<sizeof(From)>&>(r)));
    }
#endif
    else if constexpr (large >= 4 * small) {  // GCC takes a lane at a time for such a step; it is fast in two
        constexpr bool s = is_whole<From> ? lane_signed<R> : true;
        return to<E>(to<typename int_of<8 * small * (large == 4 * small ? 2 : 4), s>::type>(r));
    } else return __builtin_convertvector(r, like<R, E>);
}

template <class R> CSIM_FN R shift_left(const R& r, int n) { return R(r << lane_t<R>(n)); }
template <class R> CSIM_FN R shift_right(const R& r, int n) { return R(r >> lane_t<R>(n)); }

#if defined(__AVX512BW__)
constexpr int machine_bytes = 64;
#elif defined(__AVX2__)
constexpr int machine_bytes = 32;
#else
constexpr int machine_bytes = 16;
#endif

template <class E> struct part_of {
    typedef E type __attribute__((vector_size(machine_bytes), may_alias));
};

// All lanes set to one value. In one go, GCC 12 would send a vector of several registers through memory.
template <class R> CSIM_FN R splat(lane_t<R> value) {
    if constexpr (rep<R>::scalar) return value;
    else if constexpr (sizeof(R) <= machine_bytes) return R{} + value;
    else {
        using part = typename part_of<lane_t<R>>::type;
        const part one = part{} + value;
        R out;
        for (unsigned i = 0; i < sizeof(R) / machine_bytes; ++i) reinterpret_cast<part*>(&out)[i] = one;
        return out;
    }
}

// f(r...), register by register where the vectors r, all of one size, take several. GCC 12 would compare and select such
// vectors one lane at a time.
template <class Out, class F, class... R> CSIM_FN Out by_parts(F f, const R&... r) {
    if constexpr (sizeof(Out) <= machine_bytes || (rep<R>::scalar || ...)) return f(r...);
    else {
        using part = typename part_of<lane_t<Out>>::type;
        Out out;
        for (unsigned i = 0; i < sizeof(Out) / machine_bytes; ++i) {
            reinterpret_cast<part*>(&out)[i] = f(reinterpret_cast<const typename part_of<lane_t<R>>::type*>(&r)[i]...);
        }
        return out;
    }
}

// What comparing gives: bool, or a vector of 0 and -1 with elements of the size compared.
template <class R> struct comparison { using type = like<R, typename int_of<lane_bits<R>, true>::type>; };
template <class R>
    requires rep<R>::scalar
struct comparison<R> { using type = bool; };
template <class R> using comparison_t = typename comparison<R>::type;

template <class R> CSIM_FN comparison_t<R> below(const R& a, const R& b) {
    return by_parts<comparison_t<R>>([](const auto& x, const auto& y) { return x < y; }, a, b);
}
template <class R> CSIM_FN comparison_t<R> same(const R& a, const R& b) {
    return by_parts<comparison_t<R>>([](const auto& x, const auto& y) { return x == y; }, a, b);
}
template <class R> CSIM_FN R lesser(const R& a, const R& b) {
    return by_parts<R>([](const auto& x, const auto& y) { return y < x ? y : x; }, a, b);
}
template <class R> CSIM_FN R greater(const R& a, const R& b) {
    return by_parts<R>([](const auto& x, const auto& y) { return x < y ? y : x; }, a, b);
}

// Lane by lane m ? a : b; m is a bool, or a comparison of any element size.
template <class M, class R> CSIM_FN R pick(const M& m, const R& a, const R& b) {
    if constexpr (std::is_same_v<M, bool>) return m ? a : b;
    else {
        return by_parts<R>([](const auto& c, const auto& x, const auto& y) { return c ? x : y; },
                           to<typename int_of<lane_bits<R>, true>::type>(m), a, b);
    }
}

// Whether every lane of a comparison's result holds.
template <class M> inline bool all_set(const M& m) {
    if constexpr (sizeof(M) == 64 && lane_bits<M> == 32) return all_set(to<std::int8_t>(m));  // two words, not eight
    std::uint64_t words[sizeof(M) / 8], all = ~std::uint64_t(0);
    __builtin_memcpy(words, &m, sizeof(M));
    for (std::uint64_t word : words) all &= word;
    return all == ~std::uint64_t(0);
}

constexpr uint128 ones(int bits) { return bits <= 0 ? 0 : bits >= 128 ? ~uint128(0) : (uint128(1) << bits) - 1; }

// The low W bits of r as a number of W bits.
template <int W, bool S, class R> CSIM_FN like<R, storage<W, S>> wrap(const R& r) {
    using E = storage<W, S>;
    using U = storage<W, false>;
    constexpr int spare = storage_bits(W) - W;
    if constexpr (spare == 0) return to<E>(r);
    else if constexpr (S) return shift_right(to<E>(shift_left(to<U>(r), spare)), spare);
    else {
        const auto u = to<U>(r);
        return like<R, U>(u & splat<like<R, U>>(U(ones(W))));
    }
}

// ---- quantisation -------------------------------------------------------------------------------------------------------

// a / 2^d rounded to a whole number as Q says, 0 < d < bits of a lane; exact even where a + 2^(d-1) would not fit.
template <ap_q_mode Q, bool Headroom, class R> CSIM_FN R quantise(const R& a, int d) {
    using E = lane_t<R>;
    const R floor = shift_right(a, d);
    if constexpr (Q == AP_TRN || (Q == AP_TRN_ZERO && !lane_signed<R>)) return floor;
    else {
        const E half = E(E(1) << (d - 1));
        const R minus_if_negative = lane_signed<R> ? shift_right(a, lane_bits<R> - 1) : R{};
        R add{};
        if constexpr (Q == AP_RND) add = splat<R>(half);
        else if constexpr (Q == AP_RND_MIN_INF) add = splat<R>(E(half - 1));
        else if constexpr (Q == AP_RND_ZERO) add = R(splat<R>(E(half - 1)) - minus_if_negative);
        else if constexpr (Q == AP_RND_INF) add = R(splat<R>(half) + minus_if_negative);
        else if constexpr (Q == AP_RND_CONV) add = R(splat<R>(E(half - 1)) + (floor & splat<R>(E(1))));
        else add = R(minus_if_negative & splat<R>(E((half - 1) | half)));
        if constexpr (Headroom) return shift_right(R(a + add), d);
        else {  // only the dropped bits take part in the addition
            using U = typename int_of<lane_bits<R>, false>::type;
            const auto low = to<U>(R(a & splat<R>(E((half - 1) | half))));
            return R(floor + to<E>(shift_right(decltype(low + low)(low + to<U>(add)), d)));
        }
    }
}

// ---- overflow -----------------------------------------------------------------------------------------------------------

template <fmt To> constexpr uint128 high_raw = ones(To.w - To.s);
template <fmt To> constexpr int128 low_raw = !To.s ? 0 : To.o == AP_SAT_SYM ? -int128(high_raw<To>) : -int128(high_raw<To>) - 1;

// The replacement of a value out of range, from its low bits; `sign` is 0 or -1, `lowest_lost` its bit number To.w.
template <fmt To, class R, class M> CSIM_FN R overflowed(const R& low, const M& negative, const R& lowest_lost) {
    using U = lane_t<R>;
    constexpr int n = To.n < To.w ? To.n : To.w;
    const auto bits = [](uint128 b) { return splat<R>(U(b)); };
    const R sign = pick(negative, bits(ones(128)), R{});
    if constexpr (To.o == AP_SAT || To.o == AP_SAT_SYM) return pick(negative, bits(uint128(low_raw<To>)), bits(high_raw<To>));
    else if constexpr (To.o == AP_SAT_ZERO) return R{};
    else if constexpr (To.wraps()) return low;
    else if constexpr (To.o == AP_WRAP && !To.s) return R(low | bits(ones(n) << (To.w - n)));
    else {
        constexpr uint128 top = uint128(1) << (To.w - 1);
        constexpr uint128 after_top = n < 2 ? 0 : ones(n - 1) << (To.w - n);
        constexpr int decider = To.o == AP_WRAP_SM && n > 1 ? To.w - n : To.w - 1;
        R rest = low;
        const R msb = To.o == AP_WRAP_SM && n == 0 ? R(R{} - (lowest_lost & bits(1))) : sign;
        if constexpr (To.o == AP_WRAP_SM) {
            const R decides = R(R{} - (shift_right(low, decider) & bits(1)));
            rest = R(low ^ (n > 1 ? R(~(decides ^ sign)) : R(decides ^ msb)));
        }
        return R((rest & bits(~(top | after_top))) | (R(~sign) & bits(after_top)) | (msb & bits(top)));
    }
}

// Bit i of v, in the lowest place, where v has infinitely many: zeros below, its sign above.
template <class R> CSIM_FN R bit_of(const R& v, int i) {
    if (i < 0 || (i >= lane_bits<R> && !lane_signed<R>)) return R{};
    return shift_right(v, i < lane_bits<R> ? i : lane_bits<R> - 1);
}

// v * 2^sh brought into the range of To, for every overflow rule. The limits are compared with v before the shift, so
// nothing is lost however far it goes.
template <fmt To, class R> CSIM_FN like<R, storage<To.w, To.s>> overflow(const R& v, int sh) {
    using E = lane_t<R>;
    using U = storage<To.w, false>;
    constexpr uint128 v_max = ones(lane_bits<R> - lane_signed<R>);
    constexpr int128 v_min = lane_signed<R> ? -int128(v_max) - 1 : 0;
    const uint128 high = sh >= 128 ? 0 : high_raw<To> >> sh;
    const int128 low = sh >= 128 ? 0 : int128(-((-uint128(low_raw<To>)) >> sh));  // rounded up
    const R top = splat<R>(high < v_max ? E(high) : E(v_max));
    const R bottom = splat<R>(low > v_min ? E(low) : E(v_min));
    if constexpr (To.o == AP_SAT || To.o == AP_SAT_SYM) {
        if (sh == 0) {
            return to<storage<To.w, To.s>>(greater(lesser(v, top), bottom));
        }
    }
    const auto kept = sh >= storage_bits(To.w) ? like<R, U>{} : shift_left(to<U>(v), sh);
    const auto lowest_lost = to<U>(bit_of(v, To.w - sh));
    const auto outside = overflowed<To>(kept, below(v, R{}), lowest_lost);
    return wrap<To.w, To.s>(pick(below(top, v), outside, pick(below(v, bottom), outside, kept)));
}

// Whether every whole number of w bits times 2^sh is in the range of To.
constexpr bool always_fits(fmt to, int w, bool s, int sh) {
    if (to.o == AP_SAT_SYM && to.s && s) ++w;
    return s == to.s ? w + sh <= to.w : !s && w + sh < to.w;
}

// v * 2^SH, v a whole number of W bits, brought into the range of To in lanes as narrow as the overflow rule allows.
template <fmt To, int W, bool S, int SH, class R> CSIM_FN auto fit(const R& v) {
    using E = storage<To.w, To.s>;
    if constexpr (always_fits(To, W, S, SH)) return shift_left(to<E>(v), SH);
    else if constexpr (To.wraps()) {
        if constexpr (SH >= To.w) return like<R, E>{};
        else return wrap<To.w, To.s>(shift_left(to<storage<To.w, false>>(v), SH));
    } else if constexpr (SH > 0 && storage_bits(W + SH) <= larger(lane_bits<R>, storage_bits(To.w))) {
        return overflow<To>(shift_left(to<storage<W + SH, S>>(v), SH), 0);
    } else {
        return overflow<To>(v, SH);
    }
}

// ---- conversions --------------------------------------------------------------------------------------------------------

// Conversion of a number of format From to format To: the meaning of every assignment.
template <fmt To, fmt From, class R> CSIM_FN auto requantize(const R& raw) {
    constexpr int d = From.f() - To.f();
    constexpr bool rounds = To.q != AP_TRN && To.q != AP_TRN_ZERO;
    if constexpr (To == From) return raw;  // a plain copy: AP_SAT_SYM does not clip what is already of its type
    else if constexpr (d <= 0) return fit<To, From.w, From.s, -d>(raw);
    else if constexpr (d > From.w) {  // less than half a step: only its sign can be left
        if constexpr (To.q == AP_TRN && From.s) return fit<To, 1, true, 0>(shift_right(raw, lane_bits<R> - 1));
        else return like<R, storage<To.w, To.s>>{};
    } else if constexpr (d == lane_bits<R>) {  // halve first, keeping the fact that something was lost
        constexpr fmt half{From.w - 1, From.i, From.s};
        return requantize<To, half>(R(shift_right(raw, 1) | (raw & splat<R>(lane_t<R>(1)))));
    } else {
        constexpr bool headroom = From.w < lane_bits<R>;
        return fit<To, larger(From.w - d + rounds, 1), From.s, 0>(quantise<To.q, headroom>(raw, d));
    }
}

constexpr double power_of_two(int e) {
    double p = 1;
    for (; e > 0; --e) p *= 2;
    for (; e < 0; ++e) p /= 2;
    return p;
}
template <int E> constexpr double pow2 = power_of_two(E);

// The exact value of any double, converted to To; NaN gives 0, an infinity is a number too large for every type.
template <fmt To> constexpr storage<To.w, To.s> from_double_exact(double x) {
    const auto bits = __builtin_bit_cast(std::uint64_t, x);
    const int exponent = int(bits >> 52 & 0x7ff);
    const std::int64_t fraction = std::int64_t(bits & ones(52));
    if (x != x || x == 0) return 0;
    std::int64_t v = exponent == 0 ? fraction : fraction | std::int64_t(1) << 52;
    if (bits >> 63) v = -v;
    const int sh = (exponent == 0 ? 1 : exponent) - 1075 + To.f();
    if (sh >= 0) return overflow<To>(v, exponent == 0x7ff ? 1 << 20 : sh);
    return fit<To, 55, true, 0>(quantise<To.q, true>(v, sh < -56 ? 56 : -sh));
}

// A vector or scalar of float or double, times 2^f and below 2^(bits of I - 2), as whole numbers I rounded as Q says.
template <ap_q_mode Q, class I, class R> CSIM_FN like<R, I> quantise_real(const R& y) {
    using E = lane_t<R>;
    using J = typename int_of<lane_bits<R>, true>::type;  // the element of a comparison's result
    const auto t = to<I>(y);
    const R r = y - to<E>(t);  // exact; has the sign of y
    const auto one_if = [](const auto& m) {
        if constexpr (rep<R>::scalar) return I(m);
        else return -to<I>(to<J>(m));
    };
    const R half = splat<R>(E(0.5));
    if constexpr (Q == AP_TRN_ZERO) return t;
    else if constexpr (Q == AP_TRN) return like<R, I>(t - one_if(r < R{}));
    else if constexpr (Q == AP_RND) return like<R, I>(t + one_if(r >= half) - one_if(r < -half));
    else if constexpr (Q == AP_RND_INF) return like<R, I>(t + one_if(r >= half) - one_if(r <= -half));
    else if constexpr (Q == AP_RND_ZERO) return like<R, I>(t + one_if(r > half) - one_if(r < -half));
    else if constexpr (Q == AP_RND_MIN_INF) return like<R, I>(t + one_if(r > half) - one_if(r <= -half));
    else {
        const auto odd = like<R, I>(t & splat<like<R, I>>(I(1)));
        const auto up = like<R, I>(one_if(r > half) + (one_if(r == half) & odd));
        return like<R, I>(t + up - one_if(r < -half) - (one_if(r == -half) & odd));
    }
}

// Whether scaling by 2^f cannot round: it never makes a number smaller, and 2^f itself is representable.
template <fmt To, class E> constexpr bool scales_exactly = To.f() >= 0 && To.f() < (sizeof(E) == 4 ? 120 : 1000);

template <fmt To, class E> CSIM_FN storage<To.w, To.s> from_real(E x) {
    // A constant expression may not overflow, nor meet a NaN, in floating point.
    if (scales_exactly<To, E> && !__builtin_is_constant_evaluated()) {
        constexpr E limit = E(pow2<62>);
        const E y = x * E(pow2<scales_exactly<To, E> ? To.f() : 0>);
        if (y > -limit && y < limit) return fit<To, 64, true, 0>(quantise_real<To.q, std::int64_t>(y));
    }
    return from_double_exact<To>(double(x));
}

// As above for all lanes of a vector of float or double at once.
template <fmt To, class R> CSIM_FN auto from_real_lanes(const R& x) {
    using E = lane_t<R>;
    using Out = like<R, storage<To.w, To.s>>;
    constexpr int lanes = sizeof(R) / sizeof(E);
    if constexpr (scales_exactly<To, E>) {
        using I = storage<To.w <= 32 ? 32 : 64, true>;
        constexpr E limit = E(pow2<8 * int(sizeof(I)) - 2>);
        const R y = x * splat<R>(E(pow2<To.f()>));
        const auto inside = (y > splat<R>(-limit)) & (y < splat<R>(limit));
        if (all_set(inside)) return fit<To, 8 * int(sizeof(I)), true, 0>(quantise_real<To.q, I>(y));
    }
    Out out{};
    for (int l = 0; l < lanes; ++l) out[l] = from_real<To>(E(x[l]));
    return out;
}

// raw * 2^-f; rounded once, to even, when the raw integer has more bits than a double (or float) holds.
template <fmt From, class E, class R> CSIM_FN like<R, E> to_real(const R& raw) {
    if constexpr (sizeof(E) == 4 && (From.f() > 60 || From.f() < -60)) {
        return to<E>(to<double>(to<float>(raw)) * splat<like<R, double>>(pow2<-From.f()>));
    } else {
        return to<E>(raw) * splat<like<R, E>>(E(pow2<-From.f()>));
    }
}

// ---- operations: exact, in the result's format -----------------------------------------------------------------------

// The same value in a format that holds it.
template <fmt To, fmt From, class R> CSIM_FN auto align(const R& raw) {
    return shift_left(to<storage<To.w, To.s>>(raw), To.f() - From.f());
}

// One operand may be a vector and the other a scalar, which then meets every lane.
template <class RA, class RB> using joint = std::conditional_t<rep<RA>::scalar, RB, RA>;

template <fmt A, fmt B, class RA, class RB> CSIM_FN auto add(const RA& a, const RB& b) {
    constexpr fmt r = add_fmt(A, B);
    return like<joint<RA, RB>, storage<r.w, r.s>>(align<r, A>(a) + align<r, B>(b));
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto sub(const RA& a, const RB& b) {
    constexpr fmt r = sub_fmt(A, B);
    return like<joint<RA, RB>, storage<r.w, r.s>>(align<r, A>(a) - align<r, B>(b));
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto mul(const RA& a, const RB& b) {
    constexpr fmt r = mul_fmt(A, B);
    using E = storage<r.w, r.s>;
    return like<joint<RA, RB>, E>(to<E>(a) * to<E>(b));
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto bit_and(const RA& a, const RB& b) {
    constexpr fmt r = common_fmt(A, B);
    return like<joint<RA, RB>, storage<r.w, r.s>>(align<r, A>(a) & align<r, B>(b));
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto bit_or(const RA& a, const RB& b) {
    constexpr fmt r = common_fmt(A, B);
    return like<joint<RA, RB>, storage<r.w, r.s>>(align<r, A>(a) | align<r, B>(b));
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto bit_xor(const RA& a, const RB& b) {
    constexpr fmt r = common_fmt(A, B);
    return like<joint<RA, RB>, storage<r.w, r.s>>(align<r, A>(a) ^ align<r, B>(b));
}
template <fmt A, class R> CSIM_FN auto negate(const R& a) {
    constexpr fmt r = neg_fmt(A);
    return like<R, storage<r.w, r.s>>(-align<r, A>(a));
}
template <fmt A, class R> CSIM_FN R complement(const R& a) { return wrap<A.w, A.s>(R(~a)); }

// Scalars only. The quotient is cut toward zero on the raw integers; both are brought to a type that holds either.
template <fmt A, fmt B> CSIM_FN auto div(storage<A.w, A.s> a, storage<B.w, B.s> b) {
    constexpr fmt r = div_fmt(A, B);
    using E = storage<larger(r.w, B.w + (r.s && !B.s)), r.s>;
    return static_cast<storage<r.w, r.s>>(E(E(a) << larger(B.f(), 0)) / E(b));
}
template <fmt A, fmt B> CSIM_FN auto mod(storage<A.w, A.s> a, storage<B.w, B.s> b) {
    constexpr fmt c = common_fmt(A, B), r = mod_fmt(A, B);
    using E = storage<c.w, c.s>;
    return static_cast<storage<r.w, r.s>>(E(a) % E(b));
}

// Bits are lost at either end; a count of w or more leaves 0 or the sign.
template <fmt A, class R> CSIM_FN R shl(const R& a, int n) {
    if (n >= A.w) return R{};
    return wrap<A.w, A.s>(shift_left(to<storage<A.w, false>>(a), n));
}
template <fmt A, class R> CSIM_FN R shr(const R& a, int n) {
    constexpr int most = storage_bits(A.w) - 1;
    if (!A.s && n >= A.w) return R{};
    return shift_right(a, n < most ? n : most);
}
template <fmt A, class R> CSIM_FN R shift(const R& a, std::int64_t left) {  // a negative count turns the direction
    const auto count = [](std::int64_t n) { return n > 1024 ? 1024 : int(n); };
    return left >= 0 ? shl<A>(a, count(left)) : shr<A>(a, count(left < -1024 ? 1024 : -left));
}

// Operands too far apart for one integer are compared by the whole steps of the coarser one, then by what is left.
template <fmt A, int F> constexpr fmt whole_steps{larger(A.w - (A.f() - F), 1), larger(A.w - (A.f() - F), 1) - F, A.s};

template <class R, class X> CSIM_FN auto spread(const X& x) {  // a scalar that meets the lanes of R
    if constexpr (rep<X>::scalar) return splat<like<R, X>>(x);
    else return x;
}
template <int Bits, class R> CSIM_FN auto low_bits_clear(const R& r) {
    return same(R(r & splat<R>(lane_t<R>(ones(Bits)))), R{});
}

template <fmt A, fmt B, class RA, class RB> CSIM_FN auto equal(const RA& a, const RB& b) {
    constexpr fmt c = common_fmt(A, B);
    using R = joint<RA, RB>;
    if constexpr (c.w <= 128) return same(spread<R>(align<c, A>(a)), spread<R>(align<c, B>(b)));
    else if constexpr (A.f() > B.f()) return equal<B, A>(b, a);
    else {
        constexpr fmt whole = whole_steps<B, A.f()>;
        const auto steps_equal = equal<A, whole>(spread<R>(a), requantize<whole, B>(b));
        using M = std::remove_const_t<decltype(steps_equal)>;
        const auto exact = low_bits_clear<B.f() - A.f()>(spread<R>(b));
        if constexpr (std::is_same_v<M, bool>) return steps_equal && exact;
        else return M(steps_equal & to<lane_t<M>>(exact));
    }
}
template <fmt A, fmt B, class RA, class RB> CSIM_FN auto less(const RA& a, const RB& b) {
    constexpr fmt c = common_fmt(A, B);
    using R = joint<RA, RB>;
    if constexpr (c.w <= 128) return below(spread<R>(align<c, A>(a)), spread<R>(align<c, B>(b)));
    else if constexpr (A.f() > B.f()) {
        constexpr fmt whole = whole_steps<A, B.f()>;
        return less<whole, B>(requantize<whole, A>(a), spread<R>(b));
    } else {
        constexpr fmt whole = whole_steps<B, A.f()>;
        const auto steps = spread<R>(requantize<whole, B>(b));
        const auto steps_less = less<A, whole>(a, steps);
        using M = std::remove_const_t<decltype(steps_less)>;
        const auto exact = low_bits_clear<B.f() - A.f()>(spread<R>(b));
        if constexpr (std::is_same_v<M, bool>) return steps_less || (!exact && equal<A, whole>(a, steps));
        else return M(steps_less | (equal<A, whole>(a, steps) & ~to<lane_t<M>>(exact)));
    }
}

// a + b (or a - b) converted to To without making the exact sum where that would take wider lanes. With a rounding that
// is floor(x + constant), an operand that already lies on To's grid can be added after the other is rounded; and when the
// result wraps, only so many low bits of the sum matter. With the other roundings such an operand can be added to one that
// keeps two bits more than To, the last of them set when anything below was (which no rounding can tell from the sum).
constexpr bool on_grid(fmt a, fmt to) { return a.f() <= to.f(); }
constexpr fmt sticky_fmt(fmt a, int f) {
    const int i = larger(a.i, 1 - f);
    return a.f() > f ? fmt{i + f, i, a.s} : a;
}
template <fmt To, fmt From, class R> CSIM_FN auto sticky(const R& a) {
    constexpr int d = From.f() - To.f();
    if constexpr (d <= 0) return a;
    else if constexpr (d >= lane_bits<R>) {
        const R sign = lane_signed<R> ? shift_right(a, lane_bits<R> - 1) : R{};
        return to<storage<To.w, To.s>>(R(sign | pick(same(a, R{}), R{}, splat<R>(1))));
    } else {
        using E = lane_t<R>;
        const R lost = R(a & splat<R>(E(ones(d))));
        return to<storage<To.w, To.s>>(R(shift_right(a, d) | pick(same(lost, R{}), R{}, splat<R>(E(1)))));
    }
}

template <fmt To, fmt A, fmt B, bool Minus, class RA, class RB> CSIM_FN auto assign_sum(const RA& a, const RB& b) {
    constexpr fmt exact = Minus ? sub_fmt(A, B) : add_fmt(A, B);
    constexpr bool shifts = To.q == AP_TRN || To.q == AP_RND || To.q == AP_RND_MIN_INF;
    constexpr bool splits = shifts && (B.f() <= To.f() || (A.f() <= To.f() && !Minus));
    constexpr int low_bits = To.w + larger(exact.f() - To.f(), 0);
    constexpr fmt coarse_a = on_grid(A, To) ? A : sticky_fmt(A, To.f() + 2);
    constexpr fmt coarse_b = on_grid(B, To) ? B : sticky_fmt(B, To.f() + 2);
    constexpr fmt coarse_sum = Minus ? sub_fmt(coarse_a, coarse_b) : add_fmt(coarse_a, coarse_b);
    const auto join = [](const auto& x, const auto& y) {
        using R = joint<std::remove_cvref_t<decltype(x)>, std::remove_cvref_t<decltype(y)>>;
        if constexpr (Minus) return R(x - y);
        else return R(x + y);
    };
    if constexpr (splits && To.wraps()) {
        using U = storage<To.w, false>;
        constexpr fmt part{To.w, To.i, To.s, To.q};
        return wrap<To.w, To.s>(join(to<U>(requantize<part, A>(a)), to<U>(requantize<part, B>(b))));
    } else if constexpr (splits && exact.f() > To.f()) {
        constexpr auto rounded = [](fmt x) {
            const int i = x.f() > To.f() ? larger(x.i + (To.q != AP_TRN), 1 - To.f()) : x.i;
            const int f = x.f() > To.f() ? To.f() : x.f();
            return fmt{i + f, i, x.s, To.q};
        };
        constexpr fmt ra = rounded(A), rb = rounded(B);
        return assign_sum<To, ra, rb, Minus>(requantize<ra, A>(a), requantize<rb, B>(b));
    } else if constexpr (shifts && To.wraps() && storage_bits(low_bits) < storage_bits(exact.w)) {
        using U = storage<low_bits, false>;
        constexpr int w = storage_bits(low_bits);
        constexpr fmt low{w, w - exact.f(), false};
        return requantize<To, low>(join(to<U>(requantize<low, A>(a)), to<U>(requantize<low, B>(b))));
    } else if constexpr (on_grid(A, To) != on_grid(B, To) && storage_bits(coarse_sum.w) < storage_bits(exact.w)) {
        return assign_sum<To, coarse_a, coarse_b, Minus>(sticky<coarse_a, A>(a), sticky<coarse_b, B>(b));
    } else if constexpr (Minus) {
        return requantize<To, exact>(sub<A, B>(a, b));
    } else {
        return requantize<To, exact>(add<A, B>(a, b));
    }
}

}  // namespace csim
#endif
