// What packs do beyond the operators that test_numbers.py runs over arrays; returns the number of failed checks.
#include <cstdio>

#include "lanes.h"

using csim::lanes;
using csim::pack;

static int failed = 0;
#define CHECK(what) \
    if (!(what)) ++failed, std::printf("line %d: %s\n", __LINE__, #what)

using word = ap_fixed<16, 6>;
using byte = ap_fixed<8, 4>;

// The same 16 values again and again, however many lanes there are.
template <class P> P ramp(double first, double step) {
    P p;
    for (int l = 0; l < lanes; ++l) p.set_lane(l, typename P::value_type(first + step * (l % 16)));
    return p;
}
template <class P, class F> bool each(const P& p, F expected) {
    for (int l = 0; l < lanes; ++l) {
        if (p.lane(l) != expected(l % 16)) return false;
    }
    return true;
}

static void masks_and_select() {
    const auto x = ramp<pack<word>>(-4, 0.5);
    const auto narrow = ramp<pack<byte>>(-4, 0.5);
    const auto wide = ramp<pack<ap_fixed<60, 30>>>(-4, 0.5);
    const auto positive = x > word(0);
    CHECK(each(csim::select(positive, x, pack<word>(0)), [](int l) { return word(l > 8 ? -4 + 0.5 * l : 0); }));
    CHECK(each(select(narrow > 0, wide, pack<ap_fixed<60, 30>>(-1)), [](int l) { return l > 8 ? -4 + 0.5 * l : -1; }));
    CHECK(each(select(wide < -1, narrow, byte(2)), [](int l) { return l < 6 ? -4 + 0.5 * l : 2; }));
    CHECK(each(select(wide < -1, byte(1), narrow), [](int l) { return l < 6 ? 1 : -4 + 0.5 * l; }));
    CHECK(each(select(x == word(-4), byte(1), byte(2)), [](int l) { return l == 0 ? 1 : 2; }));
    const auto inside = (x >= word(-1)) & (wide <= 1) & !(narrow == byte(0));
    const auto either = (x < word(-1)) | (narrow > 1), one = (x < word(1)) ^ (wide < -1);
    for (int l = 0; l < lanes; ++l) {
        const double v = -4 + 0.5 * (l % 16);
        CHECK(inside[l] == (v >= -1 && v <= 1 && v != 0));
        CHECK(either[l] == (v < -1 || v > 1));
        CHECK(one[l] == (v < 1 && v >= -1));
        CHECK((x != word(1))[l] == (v != 1));
    }
    CHECK(csim::select(true, word(1), word(2)) == 1 && each(select(false, pack<word>(3), x), [](int l) { return -4 + 0.5 * l; }));
}

static void extremes() {
    const auto x = ramp<pack<word>>(-4, 0.5);
    const auto wide = ramp<pack<ap_fixed<60, 30>>>(-4, 0.5);
    CHECK(each(max(x, word(0)), [](int l) { return l > 8 ? -4 + 0.5 * l : 0; }));
    CHECK(each(min(word(0), x), [](int l) { return l < 8 ? -4 + 0.5 * l : 0; }));
    CHECK(each(max(wide, pack<ap_fixed<60, 30>>(1.25)), [](int l) { return l > 10 ? -4 + 0.5 * l : 1.25; }));
    CHECK(each(min(wide, pack<ap_fixed<60, 30>>(1.25)), [](int l) { return l < 11 ? -4 + 0.5 * l : 1.25; }));
    CHECK(max(word(-1), word(2)) == 2 && min(word(-1), word(2)) == -1);
    CHECK(each(max(pack<ap_ufixed<8, 8>>(200), ap_ufixed<8, 8>(3)), [](int) { return 200; }));
}

static void tables() {
    word table[1024];
    for (int i = 0; i < 1024; ++i) table[i] = i / 32.0;
    const auto index = ramp<pack<ap_uint<10>>>(3, 60);
    CHECK(each(csim::lookup(table, index), [](int l) { return (3 + 60 * l) / 32.0; }));
    const auto negative = ramp<pack<ap_fixed<10, 4>>>(-0.25, 0.03125);  // raw -16 and on: read as 1008 and on
    CHECK(each(lookup(table, negative), [](int l) { return ((1008 + 2 * l) % 1024) / 32.0; }));
    CHECK(csim::lookup(table, ap_fixed<10, 4>(-1.0 / 64)) == word(1023 / 32.0));
}

static void operators() {
    const auto x = ramp<pack<byte>>(-4, 0.5);
    CHECK(each(-x, [](int l) { return 4 - 0.5 * l; }) && each(~x, [](int l) { return 4 - 0.5 * l - 0.0625; }));
    CHECK(each(x << 1, [](int l) { return byte(-4 + 0.5 * l) << 1; }) && each(x >> 3, [](int l) { return byte(-4 + 0.5 * l) >> 3; }));
    CHECK(each(x >> 100, [](int l) { return l < 8 ? -0.0625 : 0; }) && each(x << -1, [](int l) { return -2 + 0.25 * l; }));
    const auto count = ramp<pack<ap_uint<4>>>(0, 1);
    CHECK(each(x << count, [](int l) { return byte(-4 + 0.5 * l) << l; }) && each(x >> count, [](int l) { return byte(-4 + 0.5 * l) >> l; }));
    CHECK(each(x / ap_uint<3>(3), [](int l) { return byte(-4 + 0.5 * l) / ap_uint<3>(3); }));
    CHECK(each(byte(2) * x, [](int l) { return -8 + l; }) && each(1 - x, [](int l) { return 5 - 0.5 * l; }));
    CHECK(each(x + 1, [](int l) { return -3 + 0.5 * l; }) && each(x & byte(0.5), [](int l) { return l % 2 ? 0.5 : 0; }));
    auto y = x;
    y += byte(1);
    y -= 2;
    y *= x;
    CHECK(each(y, [](int l) { return byte(byte(-5 + 0.5 * l) * byte(-4 + 0.5 * l)); }));
    y = 3;
    y <<= 1;
    y |= byte(0.5);
    CHECK(each(y, [](int) { return 6.5; }));
    pack<ap_fixed<4, 2, AP_RND, AP_SAT>> saturated = x;  // converted lane by lane
    CHECK(each(saturated, [](int l) { return ap_fixed<4, 2, AP_RND, AP_SAT>(-4 + 0.5 * l); }));
    saturated = 1.99;
    CHECK(each(saturated, [](int) { return 1.75; }));
    static_assert(pack<word>::width == 16 && pack<word>::iwidth == 6);
    static_assert(std::is_trivially_copyable_v<pack<word>> && std::is_trivially_default_constructible_v<pack<word>>);
    static_assert(sizeof(pack<byte>) == lanes && sizeof((x * x).raw) == 2 * lanes);  // 8-bit factors, 16-bit products
    static_assert(std::is_base_of_v<pack<ap_fixed<9, 5>>, decltype(x + x)> && std::is_same_v<decltype(x * x), pack<ap_fixed<16, 8>>>);
}

int main() {
    masks_and_select();
    extremes();
    tables();
    operators();
    return failed;
}
