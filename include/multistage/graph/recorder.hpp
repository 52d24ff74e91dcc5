// The sink of descriptions that keeps all: each verb (verbs.hpp) appends a node. `Names`
// decides whether names are kept: at run time they are (checkpoints need them), at compile time
// they would only cost.
//
//   recorder<name_list> b;
//   describe(b, song_unet{}, decoders{192, 128, 16});
//   const graph g = b.finish();                       // b.names.parameters are upstream's
#pragma once
#include <set>
#include <string>
#include <string_view>

#include "../core/error.hpp"
#include "../core/utf8.hpp"
#include "check.hpp"
#include "fuse.hpp"
#include "verbs.hpp"

namespace multistage {

/// Names of nothing.
struct no_names {
  /// No prefix.
  template <class... Parts>
  constexpr std::size_t push(const Parts&...) {
    return 0;
  }
  /// No prefix to take off.
  constexpr void pop(std::size_t) {}
  /// A parameter goes unnamed.
  constexpr void parameter(std::string_view, std::string_view) {}
  /// What follows belongs to a segment; nothing to do.
  constexpr void segment(int) {}
  /// Nothing can be wrong.
  constexpr void check() const {}
};

/// Upstream's names: of each parameter, e.g. "enc.8x8_block0.conv0.weight".
struct name_list {
  std::vector<std::string> parameters;  ///< in the order of the graph's parameters
  std::string prefix;                   ///< of what is recorded now, ended by a dot

  /// Adds to the prefix; returns how long it was.
  template <class... Parts>
  std::size_t push(const Parts&... parts) {
    const std::size_t before = prefix.size();
    (append(parts), ...);
    prefix += '.';
    return before;
  }
  /// Takes the prefix back to that length.
  void pop(std::size_t size) {
    prefix.resize(size);
  }
  /// Names the next parameter: prefix, layer, kind.
  void parameter(std::string_view layer, std::string_view kind) {
    parameters.push_back(prefix + std::string(layer) + (layer.empty() ? "" : ".") +
                         std::string(kind));
  }
  /// Refuses names under which weights could not be saved and read back: of two parameters
  /// alike, of what checkpoints keep beside the weights, and none that JSON can hold. @throws
  /// value_error
  MULTISTAGE_COLD void check() const {
    std::set<std::string_view> seen;
    for (const std::string& name : parameters)
      require<value_error>(seen.insert(name).second, "network: two parameters are called '",
                           name,
                           "'; files could hold only one of them: give the layers names of "
                           "their own, or record each inside a scope of its own");
    for (const std::string& name : parameters) {
      require<value_error>(name != "__metadata__" && name.rfind("training.", 0) != 0,
                           "network: a parameter cannot be called '", name,
                           "': '__metadata__' and names that begin with 'training.' have a "
                           "meaning of their own in checkpoints; give the layer another name");
      require<value_error>(is_utf8(name), "network: the name of parameter ",
                           &name - parameters.data(), " is not UTF-8; names in files must be");
    }
  }

 private:
  void append(std::string_view s) {
    prefix += s;
  }
  void append(int i) {
    prefix += std::to_string(i);
  }
};

/// @see the file's head. Spatial sizes that do not fit are the description's to refuse (see
/// networks/).
template <class Names = no_names>
class recorder : public verbs<recorder<Names>> {
 public:
  Names names;  ///< of the parameters, where they are kept

  /// Prefix of the names inside, until the result dies.
  template <class... Parts>
  [[nodiscard]] constexpr auto scope(const Parts&... parts) {
    return scope_guard{names, names.push(parts...)};
  }
  /// Which segment what follows belongs to: 0 shared, 1 + s stage s.
  constexpr void segment(int s) {
    require<value_error>(s >= 0, "network: segment ", s,
                         "; 0 is what stages share, 1 + s belongs to stage s");
    segment_ = s;
    if (s >= graph_.segments)
      graph_.segments = s + 1;
  }
  /// The result of the next stage.
  constexpr void output(feature x) {
    graph_.outputs.push_back(x.id);
  }

  /// What was recorded, a node a verb.
  constexpr const graph& recorded() const {
    return graph_;
  }
  /// The recorded graph, fused (fuse.hpp). @throws value_error for names that could not be
  /// saved and read back
  constexpr graph finish() const {
    const graph_check links = check_links(graph_);
    if (links.problem != graph_problem::none)
      fail<value_error>("network: ", to_string(links.problem), " (at operation ", links.node,
                        " of the description, counted from 0)");
    names.check();
    return fuse(graph_);
  }

  /// What verbs call: appends a node.
  template <class Op>
  constexpr feature take(const Op& op,
                         const ops::operand_list& operands,
                         const named_parameter& weight,
                         const named_parameter& bias) {
    if constexpr (ops::own<Op>)
      return append(ops::own_operation(op), op.describe(operands), operands, weight, bias);
    else
      return append(op, op.describe(operands), operands, weight, bias);
  }

 private:
  struct scope_guard {
    Names& names;
    std::size_t before;
    constexpr ~scope_guard() {
      names.pop(before);
    }
  };

  /// Apart from the operation's type, so that it is compiled once.
  MULTISTAGE_COLD constexpr feature append(const any_operation& what,
                                           const ops::description& facts,
                                           const ops::operand_list& operands,
                                           const named_parameter& weight,
                                           const named_parameter& bias) {
    node n{.what = what, .segment = segment_, .facts = facts};
    for (int k = 0; k < ops::most_operands; ++k)
      n.in[k] = operands[k].id;
    n.weight = keep(weight);
    n.bias = keep(bias);
    graph_.nodes.push_back(n);
    const extent& e = facts.out;
    return {int(graph_.nodes.size()) - 1, e.channels, e.height, e.width};
  }
  /// Its number, or -1 where there is none.
  constexpr int keep(const named_parameter& given) {
    if (!given.there())
      return -1;
    parameter p = given.what;
    p.segment = segment_;
    p.offset = graph_.parameter_elements;
    graph_.parameter_elements += round_up(p.size(), graph::alignment);
    graph_.parameters.push_back(p);
    names.parameter(given.layer, given.kind);
    return int(graph_.parameters.size()) - 1;
  }

  graph graph_;
  int segment_ = 0;
};

}  // namespace multistage
