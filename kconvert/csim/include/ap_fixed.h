// ap_fixed<W, I, Q, O, N> and ap_ufixed<...>: fixed-point numbers that round and saturate on assignment.
#ifndef CSIM_AP_FIXED_H
#define CSIM_AP_FIXED_H

#include "ap_int.h"

namespace csim {

template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O, int N>
struct fixed : number_base<fixed<W, I, S, Q, O, N>, fmt{W, I, S, Q, O, N}> {
    static_assert(O != AP_WRAP_SM || S, "AP_WRAP_SM needs a signed type; use AP_WRAP for an unsigned one");
    using base = number_base<fixed<W, I, S, Q, O, N>, fmt{W, I, S, Q, O, N}>;
    static constexpr bool is_integer = false;
    static constexpr ap_q_mode qmode = Q;
    static constexpr ap_o_mode omode = O;
    typename base::raw_type raw;

    fixed() = default;
    template <class A> requires any_number<A> constexpr fixed(const A& a) : raw(requantize<base::format, fmt_of<A>>(raw_of(a))) {}
    template <class R> requires std::is_floating_point_v<R> constexpr fixed(R x) : raw(real(x)) {}

    // Bit numbers of a weight: get_bit(-F) is the last bit of the fraction.
    constexpr bool get_bit(int weight) const { return this->test(weight + base::format.f()); }

    // The same bits N places higher or lower: the exact product with a power of two.
    template <int Places> constexpr fixed<W, I + Places, S, Q, O, N> lshift() const {
        return fixed<W, I + Places, S, Q, O, N>::from_raw(raw);
    }
    template <int Places> constexpr fixed<W, I - Places, S, Q, O, N> rshift() const {
        return fixed<W, I - Places, S, Q, O, N>::from_raw(raw);
    }
    static constexpr fixed bitsToFixed(typename base::bits_type bits) { return fixed::from_raw(wrap<W, S>(bits)); }

private:
    template <class R> static constexpr auto real(R x) {
        if constexpr (std::is_same_v<R, float>) return from_real<base::format>(x);
        else return from_real<base::format>(double(x));
    }
};

}  // namespace csim

template <int W, int I, ap_q_mode Q = AP_TRN, ap_o_mode O = AP_WRAP, int N = 0>
using ap_fixed = csim::fixed<W, I, true, Q, O, N>;
template <int W, int I, ap_q_mode Q = AP_TRN, ap_o_mode O = AP_WRAP, int N = 0>
using ap_ufixed = csim::fixed<W, I, false, Q, O, N>;

#endif
