// ap_int<W> and ap_uint<W>, and what they share with ap_fixed: operators, conversions to C types, access to bits.
#ifndef CSIM_AP_INT_H
#define CSIM_AP_INT_H

#include <iosfwd>

#include "ap_core.h"

namespace csim {

template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O, int N> struct fixed;
template <int W, bool S> struct integer;

// ---- what counts as a number ---------------------------------------------------------------------------------------------

// The format of a type, as an operand: numbers by their own, a C integer as the ap_int of its size.
template <class A> struct operand {
    static constexpr bool number = false, of_ours = false;
};
template <class A>
    requires std::is_integral_v<A>
struct operand<A> {
    static constexpr bool number = true, of_ours = false, whole = true;
    static constexpr int bits = std::is_same_v<A, bool> ? 1 : 8 * int(sizeof(A));
    static constexpr fmt format{bits, bits, std::is_signed_v<A>};
    static constexpr storage<format.w, format.s> raw(A a) { return storage<format.w, format.s>(a); }
};
template <class A>
    requires requires { typename A::number_tag; }
struct operand<A> {
    static constexpr bool number = true, of_ours = true, whole = A::is_integer;
    static constexpr fmt format = A::format;
    static constexpr auto raw(const A& a) { return a.raw; }
};
template <class A> concept any_number = operand<A>::number;
template <class A> concept our_number = any_number<A> && operand<A>::of_ours;
template <class A> concept whole_number = any_number<A> && operand<A>::whole;
template <class A, class B> concept number_pair = any_number<A> && any_number<B> && (our_number<A> || our_number<B>);
template <class A, class B> concept number_and_real =
    (our_number<A> && std::is_floating_point_v<B>) ||
    (our_number<B> && std::is_floating_point_v<A>);
template <class A> constexpr fmt fmt_of = operand<A>::format;
template <class A> CSIM_FN auto raw_of(const A& a) { return operand<A>::raw(a); }

// The type of an exact result: ap_int of whole operands, else ap_fixed.
template <fmt F, bool Whole> struct exact_type { using type = fixed<F.w, F.i, F.s, AP_TRN, AP_WRAP, 0>; };
template <fmt F> struct exact_type<F, true> { using type = integer<F.w, F.s>; };
template <fmt F, bool Whole> using exact = typename exact_type<F, Whole>::type;

// ---- access to bits --------------------------------------------------------------------------------------------------------

template <class T> struct bit_ref {  // x[i]
    T& of;
    int at;

    constexpr operator bool() const { return of.test(at); }
    constexpr bool operator~() const { return !*this; }
    constexpr bool operator!() const { return !bool(*this); }
    constexpr bit_ref& operator=(bool on) {
        of.set_bit(at, on);
        return *this;
    }
    constexpr bit_ref& operator=(const bit_ref& other) { return *this = bool(other); }
};

// x.range(hi, lo): the bits as an unsigned number, and assignable. With hi < lo they read in reverse order.
template <class T> struct range_ref {
    T& of;
    int hi, lo;
    using number_tag = void;
    static constexpr bool is_integer = true;
    static constexpr fmt format{std::remove_const_t<T>::width, std::remove_const_t<T>::width, false};

    constexpr auto get() const { return integer<format.w, false>::from_raw(of.bits_of(hi, lo)); }
    constexpr int length() const { return (hi < lo ? lo - hi : hi - lo) + 1; }
    constexpr auto to_uint() const { return get().to_uint(); }
    constexpr auto to_int() const { return get().to_int(); }
    constexpr auto to_uint64() const { return get().to_uint64(); }
    constexpr auto to_int64() const { return get().to_int64(); }
    template <class C> requires std::is_arithmetic_v<C> constexpr operator C() const { return C(get()); }

    template <class A> requires whole_number<A> constexpr range_ref& operator=(const A& value) {
        of.set_bits_of(hi, lo, storage<format.w, false>(integer<format.w, false>(value).raw));
        return *this;
    }
    constexpr range_ref& operator=(const range_ref& other) { return *this = other.get(); }
};
template <class T> struct operand<range_ref<T>> {
    static constexpr bool number = true, of_ours = true, whole = true;
    static constexpr fmt format = range_ref<T>::format;
    static constexpr auto raw(const range_ref<T>& a) { return a.get().raw; }
};

// ---- the members every number has ------------------------------------------------------------------------------------------

template <class T, fmt F> struct number_base {
    using number_tag = void;
    using raw_type = storage<F.w, F.s>;
    using bits_type = storage<F.w, false>;
    static constexpr fmt format = F;
    static constexpr int width = F.w;
    static constexpr int iwidth = F.i;
    static constexpr bool sign_flag = F.s;

    static constexpr T from_raw(raw_type raw) {
        T t;
        t.raw = raw;
        return t;
    }

    constexpr double to_double() const { return to_real<F, double>(self().raw); }
    constexpr float to_float() const { return to_real<F, float>(self().raw); }
    constexpr int to_int() const { return to_c<int>(); }
    constexpr unsigned to_uint() const { return to_c<unsigned>(); }
    constexpr long to_long() const { return to_c<long>(); }
    constexpr unsigned long to_ulong() const { return to_c<unsigned long>(); }
    constexpr std::int64_t to_int64() const { return to_c<std::int64_t>(); }
    constexpr std::uint64_t to_uint64() const { return to_c<std::uint64_t>(); }

    // To every C type, as C converts a double: toward zero, then the low bits. Because all of them are implicit, as in the
    // vendor's headers, mixing a number and a double in + - * / stays an error.
    template <class C> requires std::is_arithmetic_v<C> constexpr operator C() const {
        if constexpr (std::is_same_v<C, bool>) return self().raw != 0;
        else if constexpr (std::is_same_v<C, float>) return to_float();
        else if constexpr (std::is_floating_point_v<C>) return C(to_double());
        else return to_c<C>();
    }
    constexpr bool operator!() const { return self().raw == 0; }

    constexpr int length() const { return F.w; }
    constexpr bool test(int i) const { return bits() >> i & 1; }
    constexpr void set_bit(int i, bool on) {
        const auto one = bits_type(bits_type(1) << i);
        put(on ? bits() | one : bits() & ~one);
    }
    constexpr bool operator[](int i) const { return test(i); }
    constexpr bit_ref<T> operator[](int i) { return {self(), i}; }
    constexpr bool bit(int i) const { return test(i); }
    constexpr bit_ref<T> bit(int i) { return {self(), i}; }

    constexpr range_ref<T> range(int hi, int lo) { return {self(), hi, lo}; }
    constexpr range_ref<const T> range(int hi, int lo) const { return {self(), hi, lo}; }
    constexpr range_ref<T> range() { return {self(), F.w - 1, 0}; }
    constexpr range_ref<const T> range() const { return {self(), F.w - 1, 0}; }
    constexpr range_ref<T> operator()(int hi, int lo) { return range(hi, lo); }
    constexpr range_ref<const T> operator()(int hi, int lo) const { return range(hi, lo); }

    constexpr bits_type bits_of(int hi, int lo) const {
        if (hi >= lo) return bits_type(bits_type(bits() >> lo) & bits_type(ones(hi - lo + 1)));
        bits_type reversed = 0;
        for (int i = hi; i <= lo; ++i) reversed = bits_type(reversed << 1 | (bits() >> i & 1));
        return reversed;
    }
    constexpr void set_bits_of(int hi, int lo, bits_type value) {
        if (hi < lo) {
            for (int i = hi; i <= lo; ++i) set_bit(i, value >> (lo - i) & 1);
            return;
        }
        const auto mask = bits_type(bits_type(ones(hi - lo + 1)) << lo);
        put((bits() & ~mask) | (bits_type(value << lo) & mask));
    }
    constexpr void setBits(bits_type value) { put(value); }

    // The text of the number: its bits in base 2, else the decimal value. <string> must be included by the caller.
    template <class String = std::string> String to_string(int radix = 10) const {
        String text;
        if (radix == 2) {
            text = "0b";
            for (int i = F.w - 1; i >= 0; --i) {
                if (i == F.f() - 1) text += '.';
                text += test(i) ? '1' : '0';
            }
            return text;
        }
        return decimal_text<String>();
    }

protected:
    constexpr T& self() { return static_cast<T&>(*this); }
    constexpr const T& self() const { return static_cast<const T&>(*this); }
    constexpr bits_type bits() const { return bits_type(bits_type(self().raw) & bits_type(ones(F.w))); }
    constexpr void put(bits_type value) { self().raw = wrap<F.w, F.s>(value); }
    template <class C> constexpr C to_c() const {
        constexpr int n = 8 * int(sizeof(C));
        constexpr fmt target{n, n, std::is_signed_v<C>, AP_TRN_ZERO};
        return C(requantize<target, F>(self().raw));
    }

private:
    // Exact: the digits of the raw integer, halved or doubled as often as the point is away from its end.
    template <class String> String decimal_text() const {
        const bool negative = self().raw < 0;
        uint128 magnitude = negative ? -uint128(self().raw) : uint128(self().raw);
        String digits, fraction;
        do digits.insert(digits.begin(), char('0' + int(magnitude % 10)));
        while ((magnitude /= 10) != 0);
        for (int f = F.f(); f > 0; --f) {
            int carry = 0;
            for (String* part : {&digits, &fraction}) {
                for (char& digit : *part) {
                    const int value = carry * 10 + (digit - '0');
                    digit = char('0' + value / 2);
                    carry = value % 2;
                }
            }
            if (carry) fraction += '5';
        }
        for (int f = F.f(); f < 0; ++f) {
            int carry = 0;
            for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) {
                const int value = (*digit - '0') * 2 + carry;
                *digit = char('0' + value % 10);
                carry = value / 10;
            }
            if (carry) digits.insert(digits.begin(), '1');
        }
        while (digits.size() > 1 && digits[0] == '0') digits.erase(digits.begin());
        if (!fraction.empty()) digits += '.' + fraction;
        return negative ? '-' + digits : digits;
    }
};

// ---- operators ---------------------------------------------------------------------------------------------------------------

#define CSIM_BINARY(op, core, result)                                                                  \
    template <class A, class B>                                                                        \
        requires number_pair<A, B>                                                                     \
    CSIM_FN auto operator op(const A& a, const B& b) {                                                 \
        constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;                                                  \
        return exact<result(fa, fb), whole_number<A> && whole_number<B>>::from_raw(core<fa, fb>(raw_of(a), raw_of(b)));              \
    }
CSIM_BINARY(+, add, add_fmt)
CSIM_BINARY(-, sub, sub_fmt)
CSIM_BINARY(*, mul, mul_fmt)
CSIM_BINARY(/, div, div_fmt)
CSIM_BINARY(&, bit_and, common_fmt)
CSIM_BINARY(|, bit_or, common_fmt)
CSIM_BINARY(^, bit_xor, common_fmt)
#undef CSIM_BINARY

template <class A, class B>
    requires(number_pair<A, B> && whole_number<A> && whole_number<B>)
CSIM_FN auto operator%(const A& a, const B& b) {
    constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;
    return exact<mod_fmt(fa, fb), true>::from_raw(mod<fa, fb>(raw_of(a), raw_of(b)));
}

template <class A>
    requires our_number<A>
CSIM_FN auto operator-(const A& a) {
    constexpr fmt f = fmt_of<A>;
    return exact<neg_fmt(f), whole_number<A>>::from_raw(negate<f>(raw_of(a)));
}
template <class A>
    requires our_number<A>
CSIM_FN auto operator+(const A& a) {
    return a;
}
template <class A>
    requires our_number<A>
CSIM_FN auto operator~(const A& a) {
    constexpr fmt f = fmt_of<A>;
    return exact<fmt{f.w, f.i, f.s}, whole_number<A>>::from_raw(complement<f>(raw_of(a)));
}

// The count of a shift: any whole number, or a fixed one cut to it.
template <class A> CSIM_FN std::int64_t count_of(const A& a) {
    return requantize<fmt{64, 64, true, AP_TRN_ZERO, AP_SAT}, fmt_of<A>>(raw_of(a));
}
template <class A, class B>
    requires(our_number<A> && any_number<B>)
CSIM_FN A operator<<(const A& a, const B& n) {
    return A::from_raw(shift<fmt_of<A>>(a.raw, count_of(n)));
}
template <class A, class B>
    requires(our_number<A> && any_number<B>)
CSIM_FN A operator>>(const A& a, const B& n) {
    return A::from_raw(shift<fmt_of<A>>(a.raw, -count_of(n)));
}

#define CSIM_COMPARE(op, rule)                                                                         \
    template <class A, class B>                                                                        \
        requires number_pair<A, B>                                                                     \
    CSIM_FN bool operator op(const A& a, const B& b) {                                                 \
        constexpr fmt fa = fmt_of<A>, fb = fmt_of<B>;                                                  \
        const auto ra = raw_of(a);                                                                     \
        const auto rb = raw_of(b);                                                                     \
        return rule;                                                                                   \
    }                                                                                                  \
    template <class A, class B>                                                                        \
        requires number_and_real<A, B>                                                                 \
    CSIM_FN bool operator op(const A& a, const B& b) {                                                 \
        return static_cast<double>(a) op static_cast<double>(b);                                       \
    }
CSIM_COMPARE(<, (less<fa, fb>(ra, rb)))
CSIM_COMPARE(>, (less<fb, fa>(rb, ra)))
CSIM_COMPARE(<=, (!less<fb, fa>(rb, ra)))
CSIM_COMPARE(>=, (!less<fa, fb>(ra, rb)))
CSIM_COMPARE(==, (equal<fa, fb>(ra, rb)))
CSIM_COMPARE(!=, (!equal<fa, fb>(ra, rb)))
#undef CSIM_COMPARE

// Compound assignment: the exact operation, then the rounding and overflow of the left side.
#define CSIM_COMPOUND(op)                                                                              \
    template <class A, class B>                                                                        \
        requires(our_number<A> && any_number<B>)                                        \
    CSIM_FN A& operator op##=(A& a, const B& b) {                                                      \
        return a = a op b;                                                                             \
    }
CSIM_COMPOUND(+)
CSIM_COMPOUND(-)
CSIM_COMPOUND(*)
CSIM_COMPOUND(/)
CSIM_COMPOUND(%)
CSIM_COMPOUND(&)
CSIM_COMPOUND(|)
CSIM_COMPOUND(^)
CSIM_COMPOUND(<<)
CSIM_COMPOUND(>>)
#undef CSIM_COMPOUND

template <class A> requires our_number<A> constexpr A& operator++(A& a) { return a = a + true; }
template <class A> requires our_number<A> constexpr A& operator--(A& a) { return a = a - true; }
template <class A> requires our_number<A> constexpr A operator++(A& a, int) {
    const A before = a;
    ++a;
    return before;
}
template <class A> requires our_number<A> constexpr A operator--(A& a, int) {
    const A before = a;
    --a;
    return before;
}

template <class Char, class Traits, class A>
    requires our_number<A>
std::basic_ostream<Char, Traits>& operator<<(std::basic_ostream<Char, Traits>& out, const A& a) {
    if constexpr (operand<A>::whole && fmt_of<A>.w <= 64) {
        if constexpr (fmt_of<A>.s) return out << static_cast<long long>(a);
        else return out << static_cast<unsigned long long>(a);
    } else {
        return out << static_cast<double>(a);
    }
}
template <class Char, class Traits, class A>
    requires our_number<A>
std::basic_istream<Char, Traits>& operator>>(std::basic_istream<Char, Traits>& in, A& a) {
    double value = 0;
    in >> value;
    a = value;
    return in;
}

// ---- ap_int ------------------------------------------------------------------------------------------------------------------

// Assigning to a whole number cuts toward zero, as C does, and keeps the low bits.
template <int W, bool S> struct integer : number_base<integer<W, S>, fmt{W, W, S, AP_TRN_ZERO}> {
    using base = number_base<integer<W, S>, fmt{W, W, S, AP_TRN_ZERO}>;
    static constexpr bool is_integer = true;
    typename base::raw_type raw;

    integer() = default;
    template <class A> requires any_number<A> constexpr integer(const A& a) : raw(requantize<base::format, fmt_of<A>>(raw_of(a))) {}
    template <class R> requires std::is_floating_point_v<R> constexpr integer(R x) : raw(from_real<base::format>(real(x))) {}

    // GCC looks only at conversions that are no templates for the index in table[x].
    constexpr operator long long() const { return this->template to_c<long long>(); }

    constexpr bool get_bit(int i) const { return this->test(i); }
    constexpr void set(int i) { this->set_bit(i, true); }
    constexpr void set() { this->put(typename base::bits_type(ones(W))); }
    constexpr void clear(int i) { this->set_bit(i, false); }
    constexpr void clear() { raw = 0; }
    constexpr void invert(int i) { this->set_bit(i, !this->test(i)); }
    constexpr void invert() { *this = ~*this; }
    constexpr integer& reverse() {
        this->put(this->bits_of(0, W - 1));
        return *this;
    }
    constexpr void lrotate(int n) { rotate(n % W); }
    constexpr void rrotate(int n) { rotate(W - n % W); }

    constexpr bool and_reduce() const { return this->bits() == typename base::bits_type(ones(W)); }
    constexpr bool or_reduce() const { return raw != 0; }
    constexpr bool xor_reduce() const {
        bool odd = false;
        for (int i = 0; i < W; ++i) odd ^= this->test(i);
        return odd;
    }
    constexpr bool nand_reduce() const { return !and_reduce(); }
    constexpr bool nor_reduce() const { return !or_reduce(); }
    constexpr bool xnor_reduce() const { return !xor_reduce(); }
    constexpr int countLeadingZeros() const {
        int n = 0;
        while (n < W && !this->test(W - 1 - n)) ++n;
        return n;
    }
    constexpr bool sign() const { return raw < 0; }

private:
    template <class R> static constexpr auto real(R x) {
        if constexpr (std::is_same_v<R, float>) return x;
        else return double(x);
    }
    constexpr void rotate(int left) {
        const auto b = this->bits();
        if (left % W) this->put(typename base::bits_type(b << left | b >> (W - left)));
    }
};

// (a, b): the bits of a above those of b.
template <int W1, bool S1, int W2, bool S2> constexpr integer<W1 + W2, false> operator,(const integer<W1, S1>& a, const integer<W2, S2>& b) {
    using U = storage<W1 + W2, false>;
    return integer<W1 + W2, false>::from_raw(U(U(U(a.range().get().raw) << W2) | U(b.range().get().raw)));
}

}  // namespace csim

template <int W> using ap_int = csim::integer<W, true>;
template <int W> using ap_uint = csim::integer<W, false>;

#endif
