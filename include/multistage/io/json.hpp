// Configurations as JSON: the keys are those of the field's own code. What is asked for and not known is an error that names it.
#pragma once
#include <nlohmann/json.hpp>

#include "../diffusion/configuration.hpp"
#include "../stages/partition.hpp"

namespace multistage::io {

using json = nlohmann::json;

namespace detail {

/// Reads keys of an object one by one and complains about those nobody read.
class reader {
 public:
  reader(const json& j, std::string where) : j_(j), where_(std::move(where)) { require<value_error>(j.is_object(), where_, ": is not a JSON object"); }

  bool has(const char* key) const { return j_.contains(key); }
  template <class T>
  void read(const char* key, T& to) {
    used_.push_back(key);
    if (!j_.contains(key)) return;
    try {
      j_.at(key).get_to(to);
    } catch (const json::exception&) {
      fail<value_error>(where_, ": '", key, "' has an unfit value, ", j_.at(key).dump().substr(0, 60));
    }
  }
  template <std::size_t N>
  void read_list(const char* key, std::array<int, N>& to) {
    std::vector<int> list;
    read(key, list);
    if (!j_.contains(key)) return;
    require<value_error>(list.size() < N, where_, ": '", key, "' has ", list.size(), " entries, at most ", N - 1, " are supported");
    to = {};
    for (std::size_t i = 0; i < list.size(); ++i) {
      require<value_error>(list[i] > 0, where_, ": '", key, "' holds ", list[i], "; entries are above 0");
      to[i] = list[i];
    }
  }
  /// A string that must be one of `choices`; returns its place.
  int choose(const char* key, std::initializer_list<const char*> choices, int otherwise) {
    used_.push_back(key);
    if (!j_.contains(key)) return otherwise;
    int i = 0;
    std::string known;
    for (const char* c : choices) {
      if (j_.at(key) == c) return i;
      ++i;
      known += std::string(known.empty() ? "" : ", ") + c;
    }
    fail<value_error>(where_, ": '", key, "' is ", j_.at(key).dump().substr(0, 60), "; known: ", known);
  }
  void skip(std::initializer_list<const char*> keys) { used_.insert(used_.end(), keys.begin(), keys.end()); }
  void finish() const {
    for (const auto& [key, value] : j_.items()) {
      bool known = false;
      for (const auto& u : used_) known = known || u == key;
      require<value_error>(known, where_, ": '", key, "' = ", value.dump().substr(0, 60), " is not a setting this network has");
    }
  }

 private:
  const json& j_;
  std::string where_;
  std::vector<std::string> used_;
};

template <std::size_t N>
std::vector<int> to_list(const std::array<int, N>& a) {
  return {a.begin(), a.begin() + length(a)};
}

inline constexpr std::initializer_list<const char*> paths{"standard", "skip", "residual"};

}  // namespace detail

/// A configuration from JSON with the keys "network" (song_unet or adm_unet), "architecture" (unified, multi_decoder or separate),
/// "preconditioning", "decoder_channels" and those of the network. @throws value_error naming the key.
inline configuration configuration_from_json(const json& j) {
  detail::reader r(j, "configuration");
  configuration c;
  const int network = r.choose("network", {"song_unet", "adm_unet"}, -1);
  require<value_error>(network >= 0, "configuration: 'network' is missing; song_unet and adm_unet are known");
  const auto common = [&](auto& n) {
    r.read("resolution", n.resolution);
    r.read("channels", n.channels);
    r.read("encoder_channels", n.encoder_channels);
    r.read_list("channel_mult", n.channel_mult);
    r.read("num_blocks", n.num_blocks);
    r.read_list("attn_resolutions", n.attn_resolutions);
    r.read("channel_mult_emb", n.channel_mult_emb);
    r.read("norm_groups", n.norm_groups);
    r.read("label_dim", n.label_dim);
    r.read("augment_dim", n.augment_dim);
  };
  if (network == 0) {
    song_unet n;
    common(n);
    r.read("channel_mult_noise", n.channel_mult_noise);
    n.fourier = r.choose("embedding", {"positional", "fourier"}, 0) == 1;
    n.encoder_type = auxiliary_path(r.choose("encoder_type", detail::paths, 0));
    n.decoder_type = auxiliary_path(r.choose("decoder_type", {"standard", "skip"}, 0));
    r.read_list("resample_filter", n.resample_filter);
    c.network = n;
  } else {
    adm_unet n;
    common(n);
    r.read("channels_per_head", n.channels_per_head);
    c.network = n;
  }
  const int architecture = r.choose("architecture", {"unified", "multi_decoder", "separate"}, r.has("decoder_channels") ? 1 : 0);
  r.read_list("decoder_channels", c.stages.widths);
  if (architecture == 0) c.stages.widths = {std::visit([](const auto& n) { return n.encoder_channels; }, c.network)};
  c.stages.shared_encoder = architecture != 2;
  std::string precond = to_string(precondition::edm);
  r.read("preconditioning", precond);
  c.precond.kind = precondition_from(precond);
  r.read("sigma_data", c.precond.sigma_data);
  r.read("beta_min", c.precond.beta_min);
  r.read("beta_max", c.precond.beta_max);
  r.skip({"stage_boundaries", "training"});
  r.finish();
  return c;
}

/// The inverse of configuration_from_json.
inline json to_json(const configuration& c) {
  json j = std::visit(
      [](const auto& n) {
        json k{{"resolution", n.resolution},
               {"channels", n.channels},
               {"encoder_channels", n.encoder_channels},
               {"channel_mult", detail::to_list(n.channel_mult)},
               {"num_blocks", n.num_blocks},
               {"attn_resolutions", detail::to_list(n.attn_resolutions)},
               {"channel_mult_emb", n.channel_mult_emb},
               {"norm_groups", n.norm_groups},
               {"label_dim", n.label_dim},
               {"augment_dim", n.augment_dim}};
        if constexpr (std::is_same_v<std::decay_t<decltype(n)>, song_unet>) {
          k["network"] = "song_unet";
          k["channel_mult_noise"] = n.channel_mult_noise;
          k["embedding"] = n.fourier ? "fourier" : "positional";
          k["encoder_type"] = *(detail::paths.begin() + int(n.encoder_type));
          k["decoder_type"] = *(detail::paths.begin() + int(n.decoder_type));
          k["resample_filter"] = detail::to_list(n.resample_filter);
        } else {
          k["network"] = "adm_unet";
          k["channels_per_head"] = n.channels_per_head;
        }
        return k;
      },
      c.network);
  j["architecture"] = !c.stages.shared_encoder ? "separate" : c.stages.stage_count() == 1 ? "unified" : "multi_decoder";
  j["decoder_channels"] = detail::to_list(c.stages.widths);
  j["preconditioning"] = to_string(c.precond.kind);
  j["sigma_data"] = c.precond.sigma_data;
  j["beta_min"] = c.precond.beta_min;
  j["beta_max"] = c.precond.beta_max;
  return j;
}

/// The partition of a JSON list of boundaries in sigma; null or an empty list is one stage.
inline partition partition_from_json(const json& j) {
  std::vector<double> boundaries;
  try {
    if (!j.is_null()) boundaries = j.get<std::vector<double>>();
  } catch (const json::exception&) {
    fail<value_error>("stage_boundaries: ", j.dump().substr(0, 60), " is not a list of numbers");
  }
  return partition(std::move(boundaries));
}

}  // namespace multistage::io
