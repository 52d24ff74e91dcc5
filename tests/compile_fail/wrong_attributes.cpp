// a setting is out of range
#include <multistage/multistage.hpp>
namespace ms = multistage;
struct net {
  int resolution = 4, columns = 0, channels = 1, encoder_channels = 8, num_blocks = 1;
  std::array<int, 8> channel_mult{1};
  constexpr int depth() const {
    return 1;
  }
  constexpr int width() const {
    return resolution;
  }
};
template <class Builder>
constexpr ms::encoded encode(Builder& b, const net& u, bool) {
  ms::encoded e;
  const ms::feature x =
      b.conv(b.input(ms::input_slot::image, 1, 4, 4), u.encoder_channels, "first");
  e.x = b.dropout(x, 1.5);
  return e;
}
template <class Builder>
constexpr ms::feature decode(Builder& b, const net&, const ms::decoder_spec&, ms::encoded e) {
  return b.conv(e.x, 1, "last");
}
using model = ms::multi_decoder<net{}, ms::decoders{8}>;
int main() {
  return int(model::parameters);
}
