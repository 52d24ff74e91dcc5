// Configurations as JSON: the keys are those of the field's own code. What is asked for and not
// known is an error that names it.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>

#include "../diffusion/configuration.hpp"
#include "../networks/autoencoder.hpp"
#include "../stages/partition.hpp"
#include "json_text.hpp"

namespace multistage::io {

using json = nlohmann::json;

namespace detail {

/// A value as errors show it: at most 60 characters, whatever it holds.
inline std::string excerpt(const json& j) {
  if (j.is_object() || j.size() > 16)
    return j.is_object() ? "an object" : "an array of " + std::to_string(j.size());
  for (const auto& e : j)
    if (e.is_structured())
      return "an array of arrays or objects";
  return j.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 60);
}

/// A value of JSON as T; false when it is of another kind or does not fit. (The JSON library
/// would convert 1e300 to int.)
template <class T>
bool take(const json& j, T& to) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (!j.is_number_integer())
      return false;
    if (j.is_number_unsigned()
            ? j.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<T>::max())
            : j.get<std::int64_t>() < std::int64_t(std::numeric_limits<T>::min()))
      return false;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!j.is_number())
      return false;
  }
  try {
    j.get_to(to);
    return true;
  } catch (const json::exception&) {
    return false;
  }
}
template <class T>
bool take(const json& j, std::vector<T>& to) {
  if (!j.is_array())
    return false;
  for (const json& e : j) {
    T v{};
    if (!take(e, v))
      return false;
    to.push_back(v);
  }
  return true;
}

/// Reads keys of an object one by one and complains about those nobody read.
class reader {
 public:
  reader(const json& j, std::string where) : j_(j), where_(std::move(where)) {
    require<value_error>(j.is_object(), where_, ": is not a JSON object");
  }

  bool has(const char* key) const {
    return j_.contains(key);
  }
  template <class T>
  void setting(const char* key, T& to) {
    used_.push_back(key);
    if (!j_.contains(key))
      return;
    require<value_error>(take(j_.at(key), to), where_, ": '", key, "' has an unfit value, ",
                         excerpt(j_.at(key)));
  }
  template <std::size_t N>
  void list(const char* key, std::array<int, N>& to) {
    std::vector<int> list;
    setting(key, list);
    if (!j_.contains(key))
      return;
    require<value_error>(list.size() <= N, where_, ": '", key, "' has ", list.size(),
                         " entries, at most ", N, " are supported");
    to = {};
    for (std::size_t i = 0; i < list.size(); ++i) {
      require<value_error>(list[i] > 0, where_, ": '", key, "' holds ", list[i],
                           "; entries are above 0");
      to[i] = list[i];
    }
  }
  /// A string that must be one of `choices`; the value is its place.
  template <class E>
  void choice(const char* key, E& to, std::initializer_list<const char*> choices) {
    used_.push_back(key);
    if (!j_.contains(key))
      return;
    int i = 0;
    std::string known;
    for (const char* c : choices) {
      if (is_text(j_.at(key), c))
        return void(to = E(i));
      ++i;
      known += std::string(known.empty() ? "" : ", ") + c;
    }
    fail<value_error>(where_, ": '", key, "' is ", excerpt(j_.at(key)), "; known: ", known);
  }
  void skip(std::initializer_list<const char*> keys) {
    used_.insert(used_.end(), keys.begin(), keys.end());
  }
  void finish() const {
    for (const auto& [key, value] : j_.items()) {
      bool known = false;
      for (const auto& u : used_)
        known = known || u == key;
      require<value_error>(known, where_, ": '", key, "' = ", excerpt(value),
                           " is not a setting this network has");
    }
  }

 private:
  const json& j_;
  std::string where_;
  std::vector<std::string> used_;
};

/// Writes the keys that reader reads, so that each network lists its settings once.
class writer {
 public:
  json_document document{json::object()};

  template <class T>
  void setting(const char* key, T&& from) {
    document.set(key, std::forward<T>(from));
  }
  template <std::size_t N>
  void list(const char* key, const std::array<int, N>& from) {
    document.set(key, std::vector<int>(from.begin(), from.begin() + length(from)));
  }
  template <class E>
  void choice(const char* key, const E& from, std::initializer_list<const char*> choices) {
    document.set(key, *(choices.begin() + int(from)));
  }
  void skip(std::initializer_list<const char*>) {}
};

inline constexpr std::initializer_list<const char*> networks{"song_unet", "adm_unet", "ncsnpp",
                                                             "ldm_unet", "custom"};
inline constexpr std::initializer_list<const char*> path_names{"standard", "skip", "residual"};
inline constexpr std::initializer_list<const char*> architectures{"unified", "multi_decoder",
                                                                  "separate"};

/// What all networks have.
template <class F, class Net>
void common_settings(F& f, Net& n) {
  f.setting("resolution", n.resolution);
  f.setting("columns", n.columns);
  f.setting("channels", n.channels);
  f.setting("encoder_channels", n.encoder_channels);
  f.list("channel_mult", n.channel_mult);
  f.setting("num_blocks", n.num_blocks);
  f.setting("norm_groups", n.norm_groups);
  f.setting("label_dim", n.label_dim);
  f.setting("dropout", n.dropout);
  f.setting("shared_middle", n.shared_middle);
}
template <class F>
void settings(F& f, song_unet& n) {
  common_settings(f, n);
  f.list("attn_resolutions", n.attn_resolutions);
  f.setting("channel_mult_emb", n.channel_mult_emb);
  f.setting("augment_dim", n.augment_dim);
  f.setting("channel_mult_noise", n.channel_mult_noise);
  f.choice("embedding", n.fourier, {"positional", "fourier"});
  f.choice("encoder_type", n.encoder_type, path_names);
  f.choice("decoder_type", n.decoder_type, {"standard", "skip"});
  f.list("resample_filter", n.resample_filter);
}
template <class F>
void settings(F& f, adm_unet& n) {
  common_settings(f, n);
  f.list("attn_resolutions", n.attn_resolutions);
  f.setting("channel_mult_emb", n.channel_mult_emb);
  f.setting("augment_dim", n.augment_dim);
  f.setting("channels_per_head", n.channels_per_head);
}
template <class F>
void settings(F& f, ncsnpp& n) {
  common_settings(f, n);
  f.list("attn_resolutions", n.attn_resolutions);
  f.choice("embedding", n.fourier, {"positional", "fourier"});
  f.list("resample_filter", n.resample_filter);
  f.setting("fir", n.fir);
  f.choice("progressive", n.output_skip, {"none", "output_skip"});
  f.choice("progressive_input", n.progressive_input, {"none", "input_skip", "residual"});
  f.choice("progressive_combine", n.progressive_combine, {"sum", "cat"});
  f.setting("skip_rescale", n.skip_rescale);
  f.choice("resblock_type", n.resblock_type, {"biggan", "ddpm"});
  f.setting("resample_with_conv", n.resample_with_conv);
  f.setting("scale_by_sigma", n.scale_by_sigma);
  f.skip({"sigma_min", "sigma_max", "label_scale", "stage_intervals_t"});
}
template <class F>
void settings(F& f, ldm_unet& n) {
  common_settings(f, n);
  f.list("attn_downsample", n.attn_downsample);
  f.setting("num_head_channels", n.num_head_channels);
  f.setting("num_heads", n.num_heads);
  f.setting("spatial_transformer", n.spatial_transformer);
  f.setting("context_dim", n.context_dim);
  f.setting("context_tokens", n.context_tokens);
  f.setting("transformer_depth", n.transformer_depth);
  f.setting("scale_shift_norm", n.scale_shift_norm);
  f.setting("resblock_updown", n.resblock_updown);
  f.setting("class_context", n.class_context);
  f.setting("norm_eps", n.norm_eps);
  f.setting("flip_sin_to_cos", n.flip_sin_to_cos);
  f.setting("freq_shift", n.freq_shift);
  f.setting("downsample_padding", n.downsample_padding);
  f.skip({"stage_boundaries_timestep"});
}
template <class F>
void settings(F& f, custom_network& n) {
  f.setting("resolution", n.resolution);
  f.setting("columns", n.columns);
  f.setting("channels", n.channels);
  f.setting("encoder_channels", n.encoder_channels);
}
template <class F>
void settings(F& f, autoencoder& a) {
  f.choice("kind", a.kind, {"vq", "kl"});
  f.setting("resolution", a.resolution);
  f.setting("columns", a.columns);
  f.setting("channels", a.channels);
  f.setting("encoder_channels", a.encoder_channels);
  f.list("channel_mult", a.channel_mult);
  f.setting("num_blocks", a.num_blocks);
  f.list("attn_resolutions", a.attn_resolutions);
  f.setting("z_channels", a.z_channels);
  f.setting("embed_dim", a.embed_dim);
  f.setting("n_embed", a.n_embed);
  f.setting("norm_groups", a.norm_groups);
  f.setting("commitment_beta", a.commitment_beta);
  f.setting("kl_weight", a.kl_weight);
  f.setting("dropout", a.dropout);
}
template <class F>
void settings(F& f, preconditioning& p) {
  f.setting("sigma_data", p.sigma_data);
  f.setting("beta_min", p.beta_min);
  f.setting("beta_max", p.beta_max);
  f.choice("prediction_type", p.predicts,
           {"native", "epsilon", "sample", "velocity", "score", "flow"});
  f.choice("beta_schedule", p.betas, {"linear", "scaled_linear", "cosine"});
  f.setting("beta_start", p.beta_start);
  f.setting("beta_end", p.beta_end);
  f.setting("num_timesteps", p.num_timesteps);
}

/// Decoders' attention as lists of "attn" and "-" by block.
inline void read_attention(const json& lists, decoders& d) {
  require<value_error>(lists.is_array() && lists.size() == std::size_t(d.stage_count()),
                       "configuration: 'decoder_attention' needs a list for each of ",
                       d.stage_count(), " decoders");
  for (std::size_t s = 0; s < lists.size(); ++s) {
    require<value_error>(lists[s].is_array() && lists[s].size() <= 64,
                         "configuration: 'decoder_attention' of stage ", s,
                         " is not a list of at most 64 blocks");
    d.attention[s].given = true;
    for (std::size_t i = 0; i < lists[s].size(); ++i) {
      require<value_error>(is_text(lists[s][i], "attn") || is_text(lists[s][i], "-"),
                           "configuration: 'decoder_attention' holds ", excerpt(lists[s][i]),
                           "; known: \"attn\", \"-\"");
      d.attention[s].blocks |= std::uint64_t(is_text(lists[s][i], "attn")) << i;
    }
  }
}

/// The preconditioning a network is trained with where the configuration does not say.
inline precondition usual_precondition(reader& r, const configuration& c) {
  if (std::holds_alternative<ldm_unet>(c.network))
    return precondition::ddpm;
  if (!std::holds_alternative<ncsnpp>(c.network))
    return precondition::edm;
  int schedule = 0;
  r.choice("schedule", schedule, {"vp", "subvp", "ve"});
  return schedule == 0   ? precondition::vp
         : schedule == 1 ? precondition::subvp
                         : precondition::score_ve;
}

}  // namespace detail

/// A configuration from JSON with the keys "network" (song_unet, adm_unet, ncsnpp or ldm_unet),
/// "architecture" (unified, multi_decoder or separate), "preconditioning", "decoder_channels",
/// "decoder_blocks", "decoder_attention" and those of the network. @throws value_error naming
/// the key.
inline configuration configuration_from_json(const json& j) {
  detail::reader r(j, "configuration");
  configuration c;
  int network = -1;
  int architecture = r.has("decoder_channels") ? 1 : 0;
  r.choice("network", network, detail::networks);
  require<value_error>(network >= 0,
                       "configuration: 'network' is missing; song_unet, adm_unet, ncsnpp and "
                       "ldm_unet are known");
  require<value_error>(network < 4,
                       "configuration: the network is of a type of its own, which files do not "
                       "describe; make a model of that type and open the file with "
                       "load_weights or resume");
  if (network == 1)
    c.network = adm_unet{};
  if (network == 2)
    c.network = ncsnpp{};
  if (network == 3)
    c.network = ldm_unet{};
  std::visit([&](auto& n) { detail::settings(r, n); }, c.network);
  r.choice("architecture", architecture, detail::architectures);
  r.list("decoder_channels", c.stages.widths);
  if (architecture == 0)
    c.stages.widths = {std::visit([](const auto& n) { return n.encoder_channels; }, c.network)};
  c.stages.shared_encoder = architecture != 2;
  r.list("decoder_blocks", c.stages.blocks);
  r.skip({"decoder_attention", "stage_boundaries", "training"});
  if (j.contains("decoder_attention"))
    detail::read_attention(j["decoder_attention"], c.stages);
  c.precond.kind = detail::usual_precondition(r, c);
  std::string precond = to_string(c.precond.kind);
  r.setting("preconditioning", precond);
  c.precond.kind = precondition_from(precond);
  detail::settings(r, c.precond);
  r.finish();
  check(c.precond);
  return c;
}

/// The inverse of configuration_from_json.
inline json to_json(const configuration& c) {
  detail::writer w;
  configuration copy = c;
  w.choice("network", c.network.index(), detail::networks);
  std::visit([&](auto& n) { detail::settings(w, n); }, copy.network);
  w.choice("architecture",
           !c.stages.shared_encoder      ? 2
           : c.stages.stage_count() == 1 ? 0
                                         : 1,
           detail::architectures);
  w.list("decoder_channels", c.stages.widths);
  if (length(c.stages.blocks) > 0)
    w.list("decoder_blocks", c.stages.blocks);
  if (c.stages.attention[0].given) {
    json_document lists(json::array());
    for (int s = 0; s < c.stages.stage_count(); ++s) {
      json_document list(json::array());
      const std::uint64_t blocks = c.stages.attention[s].blocks;
      for (int i = 0; i < 64 && blocks >> i != 0; ++i)
        list.edit().push_back(blocks >> i & 1 ? "attn" : "-");
      lists.edit().push_back(std::move(list.edit()));
    }
    w.setting("decoder_attention", std::move(lists.edit()));
  }
  w.setting("preconditioning", to_string(c.precond.kind));
  detail::settings(w, copy.precond);
  return std::move(w.document.edit());
}

/// An autoencoder's configuration from JSON. @throws value_error naming the key.
inline autoencoder autoencoder_from_json(const json& j) {
  detail::reader r(j, "autoencoder");
  autoencoder a;
  r.skip({"network"});
  detail::settings(r, a);
  r.finish();
  return a;
}
inline json to_json(const autoencoder& a) {
  detail::writer w;
  autoencoder copy = a;
  detail::settings(w, copy);
  w.document.edit()["network"] = "autoencoder";
  return std::move(w.document.edit());
}

/// The partition of a JSON list of boundaries in sigma; null or an empty list is one stage.
inline partition partition_from_json(const json& j) {
  std::vector<double> boundaries;
  require<value_error>(j.is_null() || detail::take(j, boundaries),
                       "stage_boundaries: ", detail::excerpt(j), " is not a list of numbers");
  return partition(std::move(boundaries));
}

}  // namespace multistage::io
