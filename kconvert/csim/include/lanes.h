// Packs of lanes: one value for each of several samples, in a vector register. A pack of ap_fixed behaves lane by lane
// exactly as the scalar type does, because both call the functions of ap_core.h; scalars (weights) meet every lane.
#ifndef CSIM_LANES_H
#define CSIM_LANES_H

#include "ap_fixed.h"

#ifndef KCONVERT_LANES
#ifdef KCONVERT_SCALAR
#define KCONVERT_LANES 1
#else
#define KCONVERT_LANES 16
#endif
#endif

namespace csim {

constexpr int lanes = KCONVERT_LANES;

template <class T> struct pack;

template <class E> using lanes_of = typename vector_of<E, lanes>::type;

// A value of every sample in work: a pack, or the plain number when samples are taken one by one.
template <class T> using data = std::conditional_t<lanes == 1, T, pack<T>>;

// ---- masks: the result of comparing packs ---------------------------------------------------------------------------------

template <class E> struct mask {  // E: a signed integer, each lane 0 or -1
    lanes_of<E> raw;

    constexpr bool operator[](int lane) const { return raw[lane] != 0; }
};

template <class M> CSIM_FN auto make_mask(const M& m) {
    using E = typename int_of<lane_bits<M>, true>::type;
    return mask<E>{reinterpret_cast<lanes_of<E>>(m)};
}

template <class A, class B> using narrower = std::conditional_t<sizeof(A) <= sizeof(B), A, B>;

template <class A, class B> CSIM_FN auto operator&(const mask<A>& a, const mask<B>& b) {
    using E = narrower<A, B>;
    return mask<E>{to<E>(a.raw) & to<E>(b.raw)};
}
template <class A, class B> CSIM_FN auto operator|(const mask<A>& a, const mask<B>& b) {
    using E = narrower<A, B>;
    return mask<E>{to<E>(a.raw) | to<E>(b.raw)};
}
template <class A, class B> CSIM_FN auto operator^(const mask<A>& a, const mask<B>& b) {
    using E = narrower<A, B>;
    return mask<E>{to<E>(a.raw) ^ to<E>(b.raw)};
}
template <class A> CSIM_FN mask<A> operator!(const mask<A>& a) { return {~a.raw}; }

// ---- packs ----------------------------------------------------------------------------------------------------------------

template <class T, fmt A, fmt B, bool Minus, class RA, class RB> struct sum;

template <class T> struct pack {
    using value_type = T;
    using pack_tag = void;
    using element = typename T::raw_type;
    static constexpr fmt format = T::format;
    static constexpr int width = T::width;
    static constexpr int iwidth = T::iwidth;
    static constexpr bool sign_flag = T::sign_flag;
    static constexpr bool is_integer = T::is_integer;

    lanes_of<element> raw;

    pack() = default;
    template <class U> CSIM_FN pack(const pack<U>& other) : raw(requantize<format, U::format>(other.raw)) {}
    template <class U, fmt A, fmt B, bool Minus, class RA, class RB>
    CSIM_FN pack(const sum<U, A, B, Minus, RA, RB>& s) : raw(assign_sum<format, A, B, Minus>(s.a, s.b)) {}
    // A scalar: the same value, converted once, in every lane.
    CSIM_FN pack(const T& value) : raw(splat<lanes_of<element>>(value.raw)) {}
    template <class A>
        requires(any_number<A> || std::is_floating_point_v<A>)
    CSIM_FN pack(const A& value) : pack(T(value)) {}

    CSIM_FN static pack from_raw(const lanes_of<element>& raw) {
        pack p;
        p.raw = raw;
        return p;
    }

    // One sample a lane, from and to plain arrays of `lanes` elements.
    template <class Real>
        requires std::is_floating_point_v<Real>
    static pack load(const Real* values) {
        lanes_of<Real> x;
        __builtin_memcpy(&x, values, sizeof(x));
        return from_raw(from_real_lanes<format>(x));
    }
    template <class Real>
        requires std::is_floating_point_v<Real>
    void store(Real* values) const {
        const lanes_of<Real> x = to_real<format, Real>(raw);
        __builtin_memcpy(values, &x, sizeof(x));
    }

    constexpr T lane(int l) const { return T::from_raw(raw[l]); }
    constexpr void set_lane(int l, const T& value) { raw[l] = value.raw; }
};

// a + b or a - b, not yet converted: a pack of the exact result that also remembers its operands, so that assigning it to
// a narrower type never computes the wide sum (which the compiler then drops).
template <class T, fmt A, fmt B, bool Minus, class RA, class RB> struct sum : pack<T> {
    RA a;
    RB b;

    CSIM_FN sum(const RA& a, const RB& b) : a(a), b(b) {
        if constexpr (Minus) this->raw = sub<A, B>(a, b);
        else this->raw = add<A, B>(a, b);
    }
};

template <class T, fmt A, fmt B, bool Minus, class RA, class RB> CSIM_FN auto make_sum(const RA& a, const RB& b) {
    return sum<T, A, B, Minus, RA, RB>(a, b);
}

template <class P> struct pack_operand {
    static constexpr bool pack = false;
};
template <class P>
    requires requires { typename P::pack_tag; }
struct pack_operand<P> {
    static constexpr bool pack = true;
};
template <class P> concept any_pack = pack_operand<P>::pack;
template <class A, class B> concept pack_pair = (any_pack<A> && (any_pack<B> || any_number<B>)) || (any_pack<B> && any_number<A>);

template <class P>
    requires any_pack<P>
struct operand<P> {
    static constexpr bool number = false, of_ours = false, whole = P::is_integer;
    static constexpr fmt format = P::format;
    CSIM_FN static auto raw(const P& p) { return p.raw; }
};
template <class A, class B, fmt F> using exact_pack = pack<exact<F, operand<A>::whole && operand<B>::whole>>;

#define CSIM_PACK_BINARY(op, core, result)                                                             \
    template <class A, class B>                                                                        \
        requires pack_pair<A, B>                                                                       \
    CSIM_FN auto operator op(const A& a, const B& b) {                                                 \
        constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;                                                  \
        return exact_pack<A, B, result(fa, fb)>::from_raw(core<fa, fb>(raw_of(a), raw_of(b)));         \
    }
CSIM_PACK_BINARY(*, mul, mul_fmt)
CSIM_PACK_BINARY(&, bit_and, common_fmt)
CSIM_PACK_BINARY(|, bit_or, common_fmt)
CSIM_PACK_BINARY(^, bit_xor, common_fmt)
#undef CSIM_PACK_BINARY

#define CSIM_PACK_SUM(op, minus, result)                                                               \
    template <class A, class B>                                                                        \
        requires pack_pair<A, B>                                                                       \
    CSIM_FN auto operator op(const A& a, const B& b) {                                                 \
        constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;                                                  \
        using T = typename exact_pack<A, B, result(fa, fb)>::value_type;                               \
        return make_sum<T, fa, fb, minus>(raw_of(a), raw_of(b));                                       \
    }
CSIM_PACK_SUM(+, false, add_fmt)
CSIM_PACK_SUM(-, true, sub_fmt)
#undef CSIM_PACK_SUM

template <class A>
    requires any_pack<A>
CSIM_FN auto operator-(const A& a) {
    constexpr fmt f = fmt_of<A>;
    return exact_pack<A, A, neg_fmt(f)>::from_raw(negate<f>(a.raw));
}
template <class A>
    requires any_pack<A>
CSIM_FN auto operator~(const A& a) {
    constexpr fmt f = fmt_of<A>;
    return exact_pack<A, A, fmt{f.w, f.i, f.s}>::from_raw(complement<f>(a.raw));
}

// Division has no vector instruction: lane by lane.
template <class A, class B>
    requires(any_pack<A> && any_number<B>)
auto operator/(const A& a, const B& b) {
    constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;
    exact_pack<A, B, div_fmt(fa, fb)> out;
    for (int l = 0; l < lanes; ++l) out.raw[l] = div<fa, fb>(a.raw[l], raw_of(b));
    return out;
}

template <class T, class N>
    requires any_number<N>
CSIM_FN pack<T> operator<<(const pack<T>& a, const N& n) {
    return pack<T>::from_raw(shift<T::format>(a.raw, count_of(n)));
}
template <class T, class N>
    requires any_number<N>
CSIM_FN pack<T> operator>>(const pack<T>& a, const N& n) {
    return pack<T>::from_raw(shift<T::format>(a.raw, -count_of(n)));
}
// A count for each lane.
template <class T, class N> pack<T> operator<<(const pack<T>& a, const pack<N>& n) {
    pack<T> out;
    for (int l = 0; l < lanes; ++l) out.set_lane(l, a.lane(l) << n.lane(l));
    return out;
}
template <class T, class N> pack<T> operator>>(const pack<T>& a, const pack<N>& n) {
    pack<T> out;
    for (int l = 0; l < lanes; ++l) out.set_lane(l, a.lane(l) >> n.lane(l));
    return out;
}

#define CSIM_PACK_COMPARE(op, rule)                                                                    \
    template <class A, class B>                                                                        \
        requires pack_pair<A, B>                                                                       \
    CSIM_FN auto operator op(const A& a, const B& b) {                                                 \
        constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;                                                  \
        const auto ra = raw_of(a);                                                                     \
        const auto rb = raw_of(b);                                                                     \
        return rule;                                                                                   \
    }
CSIM_PACK_COMPARE(<, make_mask(less<fa, fb>(ra, rb)))
CSIM_PACK_COMPARE(>, make_mask(less<fb, fa>(rb, ra)))
CSIM_PACK_COMPARE(<=, !make_mask(less<fb, fa>(rb, ra)))
CSIM_PACK_COMPARE(>=, !make_mask(less<fa, fb>(ra, rb)))
CSIM_PACK_COMPARE(==, make_mask(equal<fa, fb>(ra, rb)))
CSIM_PACK_COMPARE(!=, !make_mask(equal<fa, fb>(ra, rb)))
#undef CSIM_PACK_COMPARE

#define CSIM_PACK_COMPOUND(op)                                                                         \
    template <class T, class B>                                                                        \
        requires(any_pack<B> || any_number<B>)                                                         \
    CSIM_FN pack<T>& operator op##=(pack<T>& a, const B& b) {                                          \
        return a = pack<T>(a op b);                                                                    \
    }
CSIM_PACK_COMPOUND(+)
CSIM_PACK_COMPOUND(-)
CSIM_PACK_COMPOUND(*)
CSIM_PACK_COMPOUND(/)
CSIM_PACK_COMPOUND(&)
CSIM_PACK_COMPOUND(|)
CSIM_PACK_COMPOUND(^)
CSIM_PACK_COMPOUND(<<)
CSIM_PACK_COMPOUND(>>)
#undef CSIM_PACK_COMPOUND

// ---- instead of branches and table accesses ---------------------------------------------------------------------------------

template <class E, class T> CSIM_FN pack<T> select(const mask<E>& condition, const pack<T>& a, const pack<T>& b) {
    return pack<T>::from_raw(pick(condition.raw, a.raw, b.raw));
}
template <class E, class T> CSIM_FN pack<T> select(const mask<E>& condition, const pack<T>& a, const T& b) {
    return select(condition, a, pack<T>(b));
}
template <class E, class T> CSIM_FN pack<T> select(const mask<E>& condition, const T& a, const pack<T>& b) {
    return select(condition, pack<T>(a), b);
}
template <class E, class T>
    requires our_number<T>
CSIM_FN pack<T> select(const mask<E>& condition, const T& a, const T& b) {
    return select(condition, pack<T>(a), pack<T>(b));
}
template <class T> CSIM_FN pack<T> select(bool condition, const pack<T>& a, const pack<T>& b) {  // a bit of a weight: no branch
    using E = typename int_of<8 * int(sizeof(typename T::raw_type)), true>::type;
    return pack<T>::from_raw(pick(splat<lanes_of<E>>(E(-E(condition))), a.raw, b.raw));
}
template <class T>
    requires(any_number<T> || std::is_floating_point_v<T>)
CSIM_FN T select(bool condition, const T& a, const T& b) {
    return condition ? a : b;
}

template <class T> CSIM_FN pack<T> max(const pack<T>& a, const pack<T>& b) {
    return pack<T>::from_raw(greater(a.raw, b.raw));
}
template <class T> CSIM_FN pack<T> max(const pack<T>& a, const T& b) { return max(a, pack<T>(b)); }
template <class T> CSIM_FN pack<T> max(const T& a, const pack<T>& b) { return max(pack<T>(a), b); }
template <class T> CSIM_FN pack<T> min(const pack<T>& a, const pack<T>& b) {
    return pack<T>::from_raw(lesser(a.raw, b.raw));
}
template <class T> CSIM_FN pack<T> min(const pack<T>& a, const T& b) { return min(a, pack<T>(b)); }
template <class T> CSIM_FN pack<T> min(const T& a, const pack<T>& b) { return min(pack<T>(a), b); }
template <class T>
    requires our_number<T>
CSIM_FN T max(const T& a, const T& b) {
    return a < b ? b : a;
}
template <class T>
    requires our_number<T>
CSIM_FN T min(const T& a, const T& b) {
    return b < a ? b : a;
}

// table[i] for each lane, i the bits of the index read as an unsigned number.
template <class T, class I> pack<T> lookup(const T* table, const pack<I>& index) {
    pack<T> out;
    typename I::bits_type at[lanes];
    const auto bits = wrap<I::width, false>(index.raw);
    __builtin_memcpy(at, &bits, sizeof(at));
    typename T::raw_type found[lanes];
    for (int l = 0; l < lanes; ++l) found[l] = table[at[l]].raw;
    __builtin_memcpy(&out.raw, found, sizeof(found));
    return out;
}
template <class T, class I>
    requires our_number<I>
CSIM_FN T lookup(const T* table, const I& index) {
    return table[wrap<I::width, false>(index.raw)];
}

}  // namespace csim

#endif
