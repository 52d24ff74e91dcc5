// Configurations as JSON: the keys are those of the field's own code. What is asked for and not
// known is an error that names it.
//
//   configuration c = configuration_from_json(*parse_json(text, "model.json"));
//   json again = to_json(c);         // {"network": "song_unet", "channels": 3, ...}
//
// The keys are not listed here: each struct names its own in `fields`, with ranges, and what
// is read, written and complained about follows from that list.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>

#include "../diffusion/configuration.hpp"
#include "../networks/autoencoder.hpp"
#include "../stages/partition.hpp"
#include "json_text.hpp"

namespace multistage::io {

namespace detail {

/// Reads the options of structs (core/options.hpp) from an object's keys, and complains about
/// keys that none of them has.
class reader {
 public:
  reader(const json& j, std::string where)
      : j_(j),
        where_(std::move(where)) {
    require<value_error>(j.is_object(), where_, ": is not a JSON object");
  }

  /// Whether the object has a key.
  bool has(const char* key) const {
    return j_.contains(key);
  }
  /// An option's value, where the object has its key.
  template <class T>
  MULTISTAGE_COLD void operator()(const option& o, T& to) {
    if constexpr (std::is_enum_v<T>) {
      choice(o.name, to, names_of(o, to));
    } else if constexpr (std::is_same_v<T, bool>) {
      if (o.names.size() > 0)
        choice(o.name, to, names_of(o, to));
      else
        setting(o.name, to);
    } else if constexpr (multistage::detail::is_list<T>) {
      list(o.name, to);
    } else if constexpr (multistage::detail::has_name<T>) {
      std::string name;
      setting(o.name, name);
      if (!name.empty())
        multistage::set_option(o, to, name);
    } else {
      setting(o.name, to);
    }
  }
  /// A string that must be one of `choices`; the value is its place.
  template <class E>
  void choice(const char* key, E& to, std::span<const char* const> choices) {
    used_.push_back(key);
    if (!j_.contains(key))
      return;
    const json& value = j_.at(key);
    const auto found = std::find_if(choices.begin(), choices.end(),
                                    [&](const char* name) { return is_text(value, name); });
    require<value_error>(found != choices.end(), where_, ": '", key, "' is ", excerpt(value),
                         "; known: ", multistage::detail::joined(choices));
    to = E(found - choices.begin());
  }
  /// Keys that are read elsewhere, or that say nothing here.
  void skip(std::initializer_list<const char*> keys) {
    used_.insert(used_.end(), keys.begin(), keys.end());
  }
  /// @throws value_error for a key that nothing read
  void finish() const {
    for (const auto& [key, value] : j_.items()) {
      const bool known = std::find(used_.begin(), used_.end(), key) != used_.end();
      require<value_error>(known, where_, ": '", printable(key), "' = ", excerpt(value),
                           " is not a setting there is");
    }
  }

 private:
  /// A value of a kind that JSON knows; nothing where the object has no such key.
  template <class T>
  void setting(const char* key, T& to) {
    used_.push_back(key);
    if (!j_.contains(key))
      return;
    require<value_error>(take(j_.at(key), to), where_, ": '", key, "' has an unfit value, ",
                         excerpt(j_.at(key)));
  }
  /// Numbers above 0, of which the rest of `to` is none.
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

  const json& j_;
  std::string where_;              // for messages
  std::vector<std::string> used_;  // keys that were asked for
};

/// Writes options of structs as reader reads them.
class writer {
 public:
  json_document document{json::object()};

  /// Sets the key of an option: lists without their zeros, choices by name.
  template <class T>
  MULTISTAGE_COLD void operator()(const option& o, const T& from) {
    if constexpr (multistage::detail::is_list<T>) {
      const std::vector<int> entries(from.begin(), from.begin() + length(from));
      document.set(o.name, entries);
    } else if constexpr (std::is_enum_v<T> || std::is_same_v<T, bool>) {
      const auto names = names_of(o, from);
      if (names.empty())
        document.set(o.name, from);
      else
        document.set(o.name, names[std::size_t(from)]);
    } else if constexpr (multistage::detail::has_name<T>) {
      document.set(o.name, std::string(from.name()));
    } else {
      document.set(o.name, from);
    }
  }
};

/// Reads or writes a struct's options.
template <class Visit, class Options>
void visit_fields(Visit& visit, Options& options) {
  std::remove_const_t<Options>::fields(options, visit);
}

/// In the order of `configuration::network`'s alternatives.
inline constexpr std::array networks{"song_unet", "adm_unet", "ncsnpp", "ldm_unet", "custom"};
/// By what stages share: all, the encoder, nothing.
inline constexpr std::array architectures{"unified", "multi_decoder", "separate"};

/// Passes over keys of the reference's configurations that say nothing to a network here.
inline void skip_silent_keys(reader& r, const ncsnpp&) {
  r.skip({"sigma_min", "sigma_max", "label_scale", "stage_intervals_t"});
}
/// The same of latent diffusion's.
inline void skip_silent_keys(reader& r, const ldm_unet&) {
  r.skip({"stage_boundaries_timestep"});
}

/// Decoders' attention as lists of "attn" and "-" by block.
inline void read_attention(const json& lists, decoders& d) {
  const std::size_t stages = std::size_t(d.stage_count());
  require<value_error>(lists.is_array() && lists.size() == stages,
                       "configuration: 'decoder_attention' needs a list for each of ", stages,
                       " decoders");
  for (std::size_t s = 0; s < stages; ++s) {
    const json& list = lists[s];
    require<value_error>(list.is_array() && list.size() <= 64,
                         "configuration: 'decoder_attention' of stage ", s,
                         " is not a list of at most 64 blocks");
    d.attention[s].given = true;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const bool attends = is_text(list[i], "attn");
      require<value_error>(attends || is_text(list[i], "-"),
                           "configuration: 'decoder_attention' holds ", excerpt(list[i]),
                           "; known: \"attn\", \"-\"");
      d.attention[s].blocks |= std::uint64_t(attends) << i;
    }
  }
}

/// What decoders' attention is in files, where it is given.
inline json_document attention_lists(const decoders& d) {
  json_document lists(json::array());
  for (int s = 0; s < d.stage_count(); ++s) {
    json_document list(json::array());
    const std::uint64_t blocks = d.attention[s].blocks;
    for (int i = 0; i < 64 && blocks >> i != 0; ++i)
      list.edit().push_back(blocks >> i & 1 ? "attn" : "-");
    lists.edit().push_back(std::move(list.edit()));
  }
  return lists;
}

/// The preconditioning a network is trained with where the configuration does not say.
inline precondition usual_precondition(reader& r, const configuration& c) {
  if (std::holds_alternative<ldm_unet>(c.network))
    return precondition::ddpm;
  if (!std::holds_alternative<ncsnpp>(c.network))
    return precondition::edm;
  static constexpr std::array schedules{"vp", "subvp", "ve"};
  static constexpr std::array usual{
      precondition::vp,
      precondition::subvp,
      precondition::score_ve,
  };
  std::size_t schedule = 0;
  r.choice("schedule", schedule, schedules);
  return usual[schedule];
}

/// The network of a configuration, with its own settings.
inline void read_network(reader& r, configuration& c) {
  int network = -1;
  r.choice("network", network, networks);
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
  std::visit(
      [&](auto& net) {
        visit_fields(r, net);
        if constexpr (requires { skip_silent_keys(r, net); })
          skip_silent_keys(r, net);
      },
      c.network);
}

/// What the stages have for themselves.
inline void read_decoders(reader& r, const json& j, configuration& c) {
  int architecture = r.has("decoder_channels") ? 1 : 0;
  r.choice("architecture", architecture, architectures);
  visit_fields(r, c.stages);
  // A unified network's decoder is as wide as its encoder.
  if (architecture == 0) {
    require<value_error>(
        c.stages.stage_count() < 2,
        "configuration: 'architecture' is unified and 'decoder_channels' names ",
        c.stages.stage_count(),
        " decoders; leave one of the two out, or name multi_decoder or separate");
    const auto width_of = [](const auto& network) {
      return network.encoder_channels;
    };
    c.stages.widths = {std::visit(width_of, c.network)};
  }
  c.stages.shared_encoder = architecture != 2;
  r.skip({"decoder_attention", "stage_boundaries", "training"});
  if (j.contains("decoder_attention"))
    read_attention(j["decoder_attention"], c.stages);
}

}  // namespace detail

/// A configuration from JSON with the keys "network" (song_unet, adm_unet, ncsnpp or ldm_unet),
/// "architecture" (unified, multi_decoder or separate), "decoder_attention", and the names that
/// the network, its decoders and its preconditioning give their options in `fields`. @throws
/// value_error naming the key.
inline configuration configuration_from_json(const json& j) {
  detail::reader r(j, "configuration");
  configuration c;
  detail::read_network(r, c);
  detail::read_decoders(r, j, c);
  c.precond.kind = detail::usual_precondition(r, c);
  detail::visit_fields<detail::reader, preconditioning>(r, c.precond);
  r.finish();
  require<value_error>(c.described(),
                       "configuration: the preconditioning is of a type of its own, which "
                       "files do not describe; make a model with it and open the file with "
                       "load_weights or resume");
  check(c.precond);
  return c;
}

/// The inverse of configuration_from_json.
inline json to_json(const configuration& c) {
  detail::writer w;
  const decoders& stages = c.stages;
  w.document.set("network", detail::networks[c.network.index()]);
  std::visit([&](const auto& net) { detail::visit_fields(w, net); }, c.network);
  const int encoder =
      std::visit([](const auto& net) { return net.encoder_channels; }, c.network);
  const bool unified = stages.stage_count() == 1 && stages.widths[0] == encoder;
  const int architecture = !stages.shared_encoder ? 2 : unified ? 0 : 1;
  w.document.set("architecture", detail::architectures[architecture]);
  detail::visit_fields(w, stages);
  if (length(stages.blocks) == 0)
    w.document.edit().erase("decoder_blocks");
  if (stages.attention[0].given)
    w.document.set("decoder_attention", std::move(detail::attention_lists(stages).edit()));
  detail::visit_fields<detail::writer, const preconditioning>(w, c.precond);
  return std::move(w.document.edit());
}

/// An autoencoder's configuration from JSON. @throws value_error naming the key.
inline autoencoder autoencoder_from_json(const json& j) {
  detail::reader r(j, "autoencoder");
  autoencoder a;
  r.skip({"network"});
  detail::visit_fields(r, a);
  r.finish();
  return a;
}
/// The inverse of autoencoder_from_json.
inline json to_json(const autoencoder& a) {
  detail::writer w;
  detail::visit_fields(w, a);
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
