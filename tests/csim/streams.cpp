// Streams and text, for test_numbers.py: prints one line for each thing looked at.
#include <iostream>
#include <sstream>

#include "ap_fixed.h"
#include "hls_stream.h"

int main() {
    hls::stream<ap_fixed<8, 4>> s("between");
    s << 1.5;
    s.write(-2);
    ap_fixed<8, 4> x;
    s >> x;
    std::cout << x << ' ' << s.read() << ' ' << s.empty() << ' ' << s.full() << ' ' << s.max_size() << '\n';
    std::cout << s.read_nb(x) << ' ' << s.write_nb(x) << ' ' << s.size() << ' ' << s.read_nb(x) << ' ' << s.max_size() << '\n';
    try {
        s.read();
    } catch (const std::runtime_error& error) {
        std::cout << error.what() << '\n';
    }
    hls::stream<int, 16> deep;
    for (int i = 0; i < 20; ++i) deep.write(i);
    deep.read();
    deep.write(0);
    std::cout << deep.read() << ' ' << deep.size() << ' ' << deep.max_size() << '\n';

    std::cout << ap_fixed<8, 4>(-1.6875).to_string() << ' ' << ap_fixed<8, 4>(-1.6875).to_string(2) << ' '
              << ap_uint<6>(5).to_string(2) << ' ' << ap_int<100>(-5).to_string() << ' '
              << (ap_uint<128>(1) << 127).to_string() << ' ' << ap_ufixed<4, 8>(48).to_string() << ' '
              << ap_fixed<4, -2>(0.015625).to_string() << '\n';
    std::istringstream text("2.5 -3");
    ap_fixed<8, 4> y;
    ap_int<4> z;
    text >> y >> z;
    std::cout << y << ' ' << z << ' ' << ap_uint<64>(-1) << ' ' << -z << '\n';
}
