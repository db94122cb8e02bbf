// What the number types promise, checked by the compiler.
#include <type_traits>

#include "ap_fixed.h"
#include "ap_int.h"

template <class A, class B> constexpr bool is = std::is_same_v<A, B>;
template <class T> constexpr T after(T x, auto change) {
    change(x);
    return x;
}

// ---- types ----
static_assert(is<ap_fixed<8, 4>, ap_fixed<8, 4, AP_TRN, AP_WRAP, 0>>);
static_assert(sizeof(ap_fixed<8, 4>) == 1 && sizeof(ap_ufixed<9, 4>) == 2 && sizeof(ap_int<17>) == 4);
static_assert(sizeof(ap_uint<33>) == 8 && sizeof(ap_fixed<65, 4>) == 16);
static_assert(std::is_trivially_copyable_v<ap_fixed<8, 4>> && std::is_trivially_default_constructible_v<ap_fixed<8, 4>>);
static_assert(std::is_trivially_copyable_v<ap_int<8>> && std::is_trivially_default_constructible_v<ap_int<8>>);
using saturating = ap_fixed<12, 5, AP_RND_CONV, AP_SAT_SYM>;
static_assert(saturating::width == 12 && saturating::iwidth == 5 && saturating::qmode == AP_RND_CONV);
static_assert(saturating::omode == AP_SAT_SYM && saturating::sign_flag && !ap_ufixed<8, 4>::sign_flag);
static_assert(AP_RND == 0 && AP_TRN_ZERO == 6 && AP_SAT == 0 && AP_WRAP_SM == 4);
static_assert(ap_int<7>::width == 7 && saturating::from_raw(-3) == -3.0 / 128);
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> constexpr int deduced(ap_fixed<W, I, Q, O, N>) { return 100 * W + I; }
template <int W> constexpr int deduced(ap_uint<W>) { return W; }
static_assert(deduced(saturating(1)) == 1205 && deduced(ap_uint<6>(1)) == 6);

// ---- results of operators ----
constexpr ap_fixed<8, 4> a = -1.6875;
constexpr ap_fixed<10, 3> b = 2.125;
constexpr ap_ufixed<6, 2> u = 1.4375;
static_assert(is<decltype(a + b), ap_fixed<12, 5>> && a + b == 0.4375);
static_assert(is<decltype(a - b), ap_fixed<12, 5>> && a - b == -3.8125);
static_assert(is<decltype(a * b), ap_fixed<18, 7>> && a * b == -3.5859375);
static_assert(is<decltype(a / b), ap_fixed<16, 12>> && a / b == -0.75);
static_assert(is<decltype(u + u), ap_ufixed<7, 3>> && u + u == 2.875);
static_assert(is<decltype(u - u), ap_fixed<7, 3>> && u - u == 0);
static_assert(is<decltype(a + u), ap_fixed<9, 5>> && a + u == -0.25);
static_assert(is<decltype(a * u), ap_fixed<14, 6>> && is<decltype(u / u), ap_ufixed<10, 6>>);
static_assert(is<decltype(a / u), ap_fixed<12, 8>> && a / u == -1.125 && is<decltype(u / a), ap_fixed<11, 7>>);
static_assert(is<decltype(a & b), ap_fixed<11, 4>> && (a & b) == 2 && is<decltype(a | u), ap_fixed<8, 4>>);
static_assert((a | u) == -0.5625 && (a ^ b) == -3.5625);
static_assert(is<decltype(-u), ap_fixed<7, 3>> && -u == -1.4375 && is<decltype(+saturating()), saturating>);
static_assert(is<decltype(~u), ap_ufixed<6, 2>> && ~u == 2.5);
static_assert(is<decltype(saturating() << 1), saturating> && is<decltype(saturating() >> 1), saturating>);
static_assert(is<decltype(ap_fixed<4, 6>() + ap_fixed<4, -2>()), ap_fixed<13, 7>>);
static_assert(is<decltype(ap_fixed<4, 6>() * ap_fixed<4, -2>()), ap_fixed<8, 4>>);
static_assert(is<decltype(ap_fixed<4, 6>() / ap_fixed<4, -2>()), ap_fixed<11, 13>>);
// A C integer is the ap_int of its size.
static_assert(is<decltype(a + 1), ap_fixed<37, 33>> && a + 1 == -0.6875 && is<decltype(a * 3), ap_fixed<40, 36>>);
static_assert(is<decltype(1 - a), ap_fixed<37, 33>> && 1 - a == 2.6875 && is<decltype(a * true), ap_fixed<9, 5>>);
static_assert(is<decltype(a * short(1)), ap_fixed<24, 20>> && is<decltype(a + 1u), ap_fixed<38, 34>>);
static_assert(is<decltype(ap_int<6>() + a), ap_fixed<11, 7>>);
static_assert(is<decltype(ap_int<6>() + ap_uint<6>()), ap_int<8>> && is<decltype(ap_uint<6>() * ap_uint<7>()), ap_uint<13>>);
static_assert(is<decltype(ap_int<6>() / ap_int<3>()), ap_int<7>> && is<decltype(ap_int<6>() % ap_uint<4>()), ap_int<5>>);
static_assert(is<decltype(ap_uint<6>() - ap_uint<6>()), ap_int<7>> && is<decltype(ap_uint<6>() & ap_int<3>()), ap_int<7>>);

// ---- division ----
static_assert(ap_fixed<8, 4>(1) / ap_fixed<8, 4>(3) == 0.3125 && ap_fixed<8, 4>(-1) / ap_fixed<8, 4>(3) == -0.3125);
static_assert(ap_fixed<4, 4>(-8) / ap_fixed<4, 4>(-1) == 8);  // the largest quotient there is
static_assert(ap_int<8>(-128) / ap_int<2>(-1) == 128 && ap_int<8>(-7) % ap_int<8>(4) == -3);
static_assert(ap_uint<4>(13) % ap_int<5>(-7) == 6 && ap_int<8>(-100) / ap_uint<8>(200) == 0);
static_assert(ap_int<64>(-7) / 2 == -3 && 7 / ap_int<4>(2) == 3 && 7 % ap_int<4>(4) == 3);

// ---- shifts ----
static_assert((ap_fixed<8, 4, AP_RND, AP_SAT>(7.9375) << 1) == -0.125);
static_assert((ap_fixed<8, 4>(-0.0625) >> 100) == -0.0625 && (ap_fixed<8, 4>(7.9375) >> 100) == 0);
static_assert((ap_fixed<8, 4>(1) << 8) == 0 && (ap_fixed<8, 4>(1) << 1000000) == 0 && (ap_ufixed<8, 4>(15) >> 8) == 0);
static_assert((ap_fixed<8, 4>(1.5) << -1) == 0.75 && (ap_fixed<8, 4>(1.5) >> -1) == 3 && (ap_fixed<8, 4>(-1.0625) >> 1) == -0.5625);
static_assert((ap_uint<8>(200) << 1) == 144 && (ap_int<8>(-128) >> 7) == -1 && (ap_uint<8>(200) >> 3) == 25);
static_assert((ap_fixed<8, 4>(1) << ap_uint<3>(2)) == 4 && (ap_fixed<8, 4>(4) >> ap_int<3>(2)) == 1);
static_assert((ap_fixed<8, 4>(1) << ap_fixed<8, 4>(1.75)) == 2 && (ap_fixed<70, 20>(1) << 3u) == 8);
static_assert(ap_fixed<8, 4>(1.5).lshift<2>() == 6 && is<decltype(ap_fixed<8, 4>(1.5).rshift<2>()), ap_fixed<8, 2>>);
static_assert(after(ap_fixed<8, 4>(1.5), [](auto& x) { x <<= 2; x >>= 1; }) == 3);

// ---- comparisons ----
static_assert(ap_int<8>(-1) < ap_uint<32>(5) && ap_fixed<8, 4>(-1) < 5u && ap_fixed<8, 4>(-1) < ap_ufixed<40, 36>(5));
static_assert(ap_uint<64>(1) > ap_int<64>(-1) && ap_uint<64>(-1) != ap_int<64>(-1) && -1 < ap_uint<64>(0));
static_assert(ap_fixed<64, 10>(3) > ap_fixed<64, -20>(1e-7) && !(ap_fixed<128, 100>(1) < ap_fixed<128, 1>(0.5)));
static_assert(ap_fixed<128, 100>(0.5) == ap_fixed<128, 1>(0.5) && ap_fixed<128, 100>(-0.5) == ap_fixed<128, 1>(-0.5));
constexpr auto above_half = ap_fixed<128, 1>::from_raw(ap_fixed<128, 1>(0.5).raw + 1);
static_assert(ap_fixed<100, 90>(0.5) < above_half && !(above_half <= ap_fixed<100, 90>(0.5)) && ap_fixed<100, 90>(0.5) != above_half);
static_assert(a < b && a <= b && b > a && b >= a && a != b && !(a == b) && a == a);
static_assert(a < -1.5 && 2.0 < b && a == -1.6875f && b != 2.0 && a <= -1.6875 && 3 >= b && 2 != b && ap_int<4>(3) < 3.5);

// ---- rounding and overflow on assignment only, rounding first ----
static_assert(ap_fixed<4, 2, AP_RND, AP_SAT>(1.99) == 1.75 && ap_fixed<4, 2, AP_RND>(1.99) == -2);
static_assert(ap_ufixed<4, 2, AP_RND, AP_SAT>(3.99) == 3.75 && ap_ufixed<4, 2, AP_RND>(-0.01) == 0 && ap_ufixed<4, 2>(-0.01) == 3.75);
constexpr auto lowest = ap_fixed<4, 4, AP_TRN, AP_SAT_SYM>::from_raw(-8);
static_assert(ap_fixed<4, 4, AP_TRN, AP_SAT_SYM>(lowest) == -8 && ap_fixed<4, 4, AP_TRN, AP_SAT_SYM>(ap_int<4>(-8)) == -7);
static_assert(after(ap_fixed<8, 4, AP_TRN, AP_SAT>(7), [](auto& x) { x += 5; }) == 7.9375);
static_assert(after(ap_fixed<8, 4, AP_TRN, AP_SAT>(7.5), [](auto& x) { ++x; }) == 7.9375);
static_assert(after(ap_fixed<8, 4>(7.5), [](auto& x) { x++; }) == -7.5 && after(ap_uint<3>(0), [](auto& x) { --x; }) == 7);
static_assert(after(ap_fixed<8, 4>(3), [](auto& x) { x *= x; x -= 1; x /= ap_fixed<8, 4>(2); }) == -4);
static_assert(after(ap_uint<8>(12), [](auto& x) { x |= 3; x &= 14; x ^= 1; x %= 8; }) == 7);

// ---- conversions ----
static_assert(ap_fixed<8, 4>(-1e-30) == -0.0625 && ap_fixed<8, 4, AP_RND>(-1e-30) == 0 && ap_fixed<8, 4>(-0.0) == 0);
static_assert(ap_fixed<8, 4>(-5e-324) == -0.0625 && ap_fixed<8, 12>(-1e-310) == -16);
constexpr double infinity = __builtin_inf();
static_assert(ap_fixed<8, 4, AP_TRN, AP_SAT>(infinity) == 7.9375 && ap_fixed<8, 4, AP_TRN, AP_SAT>(-infinity) == -8);
static_assert(ap_fixed<8, 4>(infinity) == 0 && ap_fixed<8, 4>(__builtin_nan("")) == 0 && ap_fixed<8, 4>(1e300) == 0);
static_assert(ap_fixed<40, 2>(0.1f) != ap_fixed<40, 2>(0.1) && ap_fixed<128, 64>(0.1).to_double() == 0.1);
static_assert(ap_fixed<8, 4, AP_TRN, AP_SAT>(100) == 7.9375 && ap_fixed<8, 4>(100) == 4 && ap_fixed<8, 4>(true) == 1);
static_assert(ap_fixed<8, 4>('a') == 1 && ap_fixed<24, 20>(-30000L) == -30000 && ap_fixed<8, 4>(1.5L) == 1.5);
static_assert(ap_fixed<8, 4>(-7.5).to_int() == -7 && ap_fixed<8, 4>(-0.5).to_int() == 0 && int(ap_fixed<8, 4>(-7.5)) == -7);
static_assert(ap_int<8>(ap_fixed<8, 4>(-7.5)) == -7 && ap_fixed<8, 8>(ap_fixed<8, 4>(-7.5)) == -8);
static_assert(ap_fixed<40, 36>(3e9).to_int() == -1294967296 && ap_int<4>(ap_fixed<16, 8>(9.7)) == -7);
static_assert(ap_fixed<8, 4>(-1).to_uint() == 4294967295u && ap_fixed<8, 4>(-1).to_int64() == -1);
static_assert(ap_fixed<8, 4>(-1).to_uint64() == ~std::uint64_t(0) && ap_fixed<8, -1>(-0.05).to_int() == 0);
static_assert(bool(ap_fixed<8, 4>(0.25)) && !ap_fixed<8, 4>(0) && !bool(ap_int<3>(0)) && static_cast<short>(a) == -1);
static_assert(ap_int<8>(300.7) == 44 && ap_int<8>(-300.7) == -44 && ap_uint<8>(-1.5) == 255 && ap_int<8>(-0.25) == 0);
static_assert(ap_int<8>(-1e-300) == 0 && ap_int<8>(1e200) == 0 && ap_uint<4>(-1) == 15);
static_assert(double(ap_uint<120>(1) << 100) == 1267650600228229401496703205376.0 && float(ap_int<70>(-3)) == -3.0f);
static_assert(ap_fixed<64, 32>(0.5).to_double() == 0.5 && ap_ufixed<64, 64>(~0ull).to_double() == 18446744073709551616.0);
static_assert(ap_fixed<26, 26>(16777217).to_float() == 16777216.0f && ap_fixed<26, 26>(16777219).to_float() == 16777220.0f);
constexpr int table[4] = {3, 5, 7, 9};
static_assert(table[ap_uint<2>(2)] == 7);
static_assert(a.to_double() == -1.6875 && a.to_float() == -1.6875f && static_cast<float>(b) == 2.125f);

// ---- bits ----
constexpr ap_uint<8> bits = 0b10110001;
static_assert(bits[0] && !bits[1] && bits[7] && bits.test(4) && bits.length() == 8 && bits.get_bit(5));
static_assert(bits.range(7, 4) == 11 && bits(3, 0) == 1 && bits.range() == 177 && bits.range(6, 4).to_uint() == 3);
static_assert(bits.range(4, 7) == 0b1101 && ap_uint<4>(5).range(0, 3) == 10 && bits.range(0, 7) == 0b10001101);
static_assert(a.range() == 0b11100101 && a.range(3, 0) == 5 && a.range(7, 4).length() == 4 && a[7]);
static_assert(after(ap_uint<8>(0), [](auto& x) { x[3] = 1; x.range(7, 6) = 2; x.bit(0) = x[3]; }) == 0b10001001);
static_assert(after(ap_fixed<8, 4>(0), [](auto& x) { x.range() = 0xf0; }) == -1);
static_assert(after(ap_fixed<8, 4>(0), [](auto& x) { x.range(3, 0) = ap_uint<4>(8); x[4] = true; }) == 1.5);
static_assert(after(ap_fixed<8, 4>(0), [](auto& x) { x.range() = a.range(); }) == a);
static_assert(after(ap_uint<4>(0), [](auto& x) { x.range(0, 3) = 3; }) == 12);
static_assert(after(ap_fixed<8, 4>(0), [](auto& x) { x.setBits(0xf8); }) == -0.5 && a.get_bit(-4) && !a.get_bit(-3) && a.get_bit(3));
static_assert(ap_fixed<8, 4>::bitsToFixed(0xf8) == -0.5);
static_assert(ap_uint<4>(a.range(7, 4)) == 14 && ap_uint<4>(a.range(7, 4)) + 1 == 15 && a.range(7, 4) + 1 == 15);
static_assert(ap_uint<3>(7).and_reduce() && !ap_int<3>(3).and_reduce() && ap_int<3>(-1).and_reduce() && bits.or_reduce());
static_assert(!bits.xor_reduce() && ap_uint<3>(7).xor_reduce() && bits.xnor_reduce() && bits.nand_reduce() && ap_uint<4>(0).nor_reduce());
static_assert(ap_uint<8>(1).countLeadingZeros() == 7 && ap_uint<8>(0).countLeadingZeros() == 8 && ap_int<8>(-1).countLeadingZeros() == 0);
static_assert(after(bits, [](auto& x) { x.reverse(); }) == 0b10001101 && after(bits, [](auto& x) { x.lrotate(3); }) == 0b10001101);
static_assert(after(bits, [](auto& x) { x.rrotate(1); }) == 0b11011000 && after(bits, [](auto& x) { x.lrotate(8); }) == bits);
static_assert(after(ap_uint<4>(5), [](auto& x) { x.set(1); x.clear(0); x.invert(3); }) == 14 && after(ap_int<4>(5), [](auto& x) { x.invert(); }) == -6);
static_assert(after(ap_uint<4>(5), [](auto& x) { x.set(); }) == 15 && after(ap_uint<4>(5), [](auto& x) { x.clear(); }) == 0);
static_assert(is<decltype((ap_uint<4>(9), ap_int<3>(-1))), ap_uint<7>> && (ap_uint<4>(9), ap_int<3>(-1)) == 0b1001111);
static_assert(~bits == 78 && -ap_uint<8>(200) == -200 && ap_int<4>(-8).sign() && !ap_int<4>(7).sign());
