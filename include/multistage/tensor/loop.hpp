// The loop that assigns an expression's elements. Axes that lie alike in all operands are
// joined first, so that most expressions are one long axis. Backends on the host take pieces of
// it, gathering operands with strides into a small buffer, so that the loop over a piece is
// always a plain one that compilers turn into vectors; devices take an element a thread.
#pragma once
#include "expression.hpp"

/// The elements of one loop do not depend on each other: an operand lies exactly on the result,
/// or nowhere near it.
#if defined(__CUDACC__)
#define MULTISTAGE_INDEPENDENT
#elif defined(__clang__)
#define MULTISTAGE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define MULTISTAGE_INDEPENDENT _Pragma("GCC ivdep")
#else
#define MULTISTAGE_INDEPENDENT
#endif

namespace multistage::lazy {

/// A leaf in a kernel: elements by place along `Rank` axes.
template <class T, int Rank>
struct strided {
  const T* data;             ///< the element at place 0 along every axis
  index_list<Rank> strides;  ///< in elements; 0 along axes that repeat it

  /// The element at a place, as the number that is computed with.
  MULTISTAGE_HD computed_t<T> at(const index_list<Rank>& place) const {
    index_t offset = 0;
    for (int k = 0; k < Rank; ++k)
      offset += place[k] * strides[k];
    return static_cast<computed_t<T>>(data[offset]);
  }
};
/// A leaf in a loop: elements one after the other.
template <class T>
struct line {
  const T* data;  ///< the first element of the loop

  /// Element i of the loop, as the number that is computed with.
  MULTISTAGE_HD computed_t<T> at(index_t i) const {
    return static_cast<computed_t<T>>(data[i]);
  }
};
/// An inner node in a kernel.
template <class F, class... Nodes>
struct computed {
  F function;                    ///< applied to one number of each operand
  arguments<Nodes...> operands;  ///< leaves as kernels read them, or nodes again

  /// The value at a place: an index_list for `strided` leaves, an index for `line`s. Operands
  /// are computed first to last.
  template <class Place>
  MULTISTAGE_HD auto at(const Place& place) const {
    return call(place, operands);
  }

 private:
  template <class Place, class... Values>
  MULTISTAGE_HD auto call(const Place&, const arguments<>&, const Values&... values) const {
    return function(values...);
  }
  template <class Place, class Head, class... Tail, class... Values>
  MULTISTAGE_HD auto call(const Place& place,
                          const arguments<Head, Tail...>& nodes,
                          const Values&... values) const {
    return call(place, nodes.tail, values..., nodes.head.at(place));
  }
};

// Walks over trees: `with_leaves` makes the same tree with other leaves, `for_each_leaf` visits
// them in order.
/// A number stays what it is.
template <class T, class Make>
constant<T> with_leaves(const constant<T>& c, Make&&) {
  return c;
}
/// A leaf of the user's expression becomes what `make` returns for it.
template <class T, class E, class B, class Make>
auto with_leaves(const leaf<T, E, B>& l, Make&& make) {
  return make(l);
}
/// A leaf of a kernel's tree becomes what `make` returns for it.
template <class T, int Rank, class Make>
auto with_leaves(const strided<T, Rank>& l, Make&& make) {
  return make(l);
}
/// No operands are left.
template <class Make>
arguments<> with_leaves(const arguments<>&, Make&&) {
  return {};
}
/// Operands first to last; declared before nodes, which hold them.
template <class Head, class... Tail, class Make>
auto with_leaves(const arguments<Head, Tail...>& nodes, Make&& make);
/// An inner node of the user's expression becomes one of a kernel.
template <class F, class... Nodes, class Make>
auto with_leaves(const applied<F, Nodes...>& n, Make&& make) {
  auto operands = with_leaves(n.operands, make);
  return [&]<class... New>(const arguments<New...>& o) {
    return computed<F, New...>{n.function, o};
  }(operands);
}
/// An inner node of a kernel's tree keeps its function.
template <class F, class... Nodes, class Make>
auto with_leaves(const computed<F, Nodes...>& n, Make&& make) {
  auto operands = with_leaves(n.operands, make);
  return [&]<class... New>(const arguments<New...>& o) {
    return computed<F, New...>{n.function, o};
  }(operands);
}
/// Operands first to last.
template <class Head, class... Tail, class Make>
auto with_leaves(const arguments<Head, Tail...>& nodes, Make&& make) {
  auto head = with_leaves(nodes.head, make);
  auto tail = with_leaves(nodes.tail, make);
  return [&]<class H, class... New>(const H& h, const arguments<New...>& t) {
    return arguments<H, New...>{h, t};
  }(head, tail);
}

/// A number is no leaf: it lies nowhere.
template <class T, class Visit>
void for_each_leaf(const constant<T>&, Visit&&) {}
/// Visits a leaf of the user's expression.
template <class T, class E, class B, class Visit>
void for_each_leaf(const leaf<T, E, B>& l, Visit&& visit) {
  visit(l);
}
/// Visits a leaf of a kernel's tree, which the visitor may change.
template <class T, int Rank, class Visit>
void for_each_leaf(strided<T, Rank>& l, Visit&& visit) {
  visit(l);
}
/// No operands are left.
template <class Visit>
void for_each_leaf(const arguments<>&, Visit&&) {}
/// A list of operands that is not empty.
template <class Nodes>
concept several = requires(Nodes& n) {
  n.head;
};
/// A node that has operands.
template <class Node>
concept inner_node = requires(Node& n) {
  n.operands;
};
/// Operands first to last.
template <several Nodes, class Visit>
void for_each_leaf(Nodes& nodes, Visit&& visit) {
  for_each_leaf(nodes.head, visit);
  for_each_leaf(nodes.tail, visit);
}
/// An inner node: those of its operands.
template <inner_node Node, class Visit>
void for_each_leaf(Node& n, Visit&& visit) {
  for_each_leaf(n.operands, visit);
}

/// Bytes of buffers that a piece of `n` elements takes when no operand lies as the result does.
template <class T>
constexpr index_t buffer_bytes(const constant<T>*, index_t) {
  return 0;
}
/// A leaf may have to be gathered: n elements as they are stored.
template <class T, int Rank>
constexpr index_t buffer_bytes(const strided<T, Rank>*, index_t n) {
  return n * index_t(sizeof(T));
}
/// What the operands take together, each with a buffer of its own.
template <class... Nodes>
constexpr index_t buffer_bytes(const arguments<Nodes...>*, index_t n) {
  return (index_t{0} + ... + buffer_bytes(static_cast<const Nodes*>(nullptr), n));
}
/// What a node's operands take; its own values are never stored.
template <class F, class... Nodes>
constexpr index_t buffer_bytes(const computed<F, Nodes...>*, index_t n) {
  return buffer_bytes(static_cast<const arguments<Nodes...>*>(nullptr), n);
}

/// The axes of a loop, the last one fastest.
template <int Rank>
struct loop_axes {
  int count = 0;             ///< how many axes there are; the rest of the lists means nothing
  index_list<Rank> extents;  ///< elements along each axis

  /// How often the loop runs.
  MULTISTAGE_HD index_t size() const {
    index_t n = 1;
    for (int k = 0; k < count; ++k)
      n *= extents[k];
    return n;
  }
  /// The place of element i.
  MULTISTAGE_HD index_list<Rank> place(index_t i) const {
    index_list<Rank> p;
    for (int k = count - 1; k >= 0; --k) {
      p[k] = i % extents[k];
      i /= extents[k];
    }
    return p;
  }
  /// How far the element at a place lies behind the first, in elements.
  MULTISTAGE_HD index_t offset(const index_list<Rank>& place,
                               const index_list<Rank>& strides) const {
    index_t o = 0;
    for (int k = 0; k < count; ++k)
      o += place[k] * strides[k];
    return o;
  }
  /// Whether elements with these strides lie one after the other.
  MULTISTAGE_HD bool packed(const index_list<Rank>& strides) const {
    return count == 0 || (count == 1 && strides[0] == 1);
  }
  /// f(offset of the first, elements, stride) for runs along the last axis that make up
  /// elements [first, first + n).
  template <class F>
  MULTISTAGE_HD void for_each_run(index_t first,
                                  index_t n,
                                  const index_list<Rank>& strides,
                                  F&& f) const {
    if (n == 0)
      return;
    if (count == 0)
      return f(index_t{0}, n, index_t{1});
    const int last = count - 1;
    index_list<Rank> p = place(first);
    index_t line = offset(p, strides) - p[last] * strides[last];
    while (n > 0) {
      const index_t left = extents[last] - p[last];
      const index_t run = left < n ? left : n;
      f(line + p[last] * strides[last], run, strides[last]);
      n -= run;
      p[last] = 0;
      for (int k = last - 1; k >= 0; --k) {
        line += strides[k];
        if (++p[k] < extents[k])
          break;
        line -= extents[k] * strides[k];
        p[k] = 0;
      }
    }
  }
};
/// Joins neighbouring axes that lie as one; axes of one element go.
template <int Rank>
MULTISTAGE_HD void join_axes(loop_axes<Rank>& loop, index_list<Rank>& strides) {
  int n = 0;
  for (int k = 0; k < loop.count; ++k) {
    if (loop.extents[k] == 1)
      continue;
    if (n > 0 && strides[n - 1] == strides[k] * loop.extents[k]) {
      loop.extents[n - 1] *= loop.extents[k];
      strides[n - 1] = strides[k];
    } else {
      loop.extents[n] = loop.extents[k];
      strides[n++] = strides[k];
    }
  }
  loop.count = n;
}

/// What assigns elements of one expression. The result's strides descend, and so neighbours in
/// the loop are neighbours in memory.
template <class Tree, class T, int Rank>
struct assignment {
  // elements: a few buffers of them stay in the first-level cache
  static constexpr index_t piece = 1024;

  loop_axes<Rank> axes;      ///< those of the result, joined where all operands allow it
  Tree tree;                 ///< the expression, its leaves `strided` along these axes
  T* to;                     ///< the result's element at place 0 along every axis
  index_list<Rank> strides;  ///< the result's, descending and above 0

  /// One element.
  struct by_element {
    assignment a;  ///< the whole of it, by value: a device reads no memory of the host
    /// Element i of the loop: its place along the axes, the tree's value there, and the store.
    MULTISTAGE_HD void operator()(index_t i) const {
      const index_list<Rank> place = a.axes.place(i);
      a.to[a.axes.offset(place, a.strides)] = static_cast<T>(a.tree.at(place));
    }
  };
  /// Elements [k piece, (k + 1) piece).
  struct by_piece {
    assignment a;  ///< the whole of it, by value
    index_t size;  ///< elements in all; the last piece may be shorter
    /// Piece k: leaves that lie as the loop does are read where they are, others are gathered
    /// into a buffer; one plain loop; and a scatter where the result has strides.
    void operator()(index_t k) const {
      constexpr index_t bytes =
          buffer_bytes(static_cast<const Tree*>(nullptr), piece) + piece * index_t(sizeof(T));
      alignas(64) unsigned char buffers[std::size_t(bytes)];
      index_t used = 0;
      const index_t first = k * piece;
      const index_t n = size - first < piece ? size - first : piece;
      const auto lines =
          with_leaves(a.tree, [&]<class U>(const strided<U, Rank>& l) -> line<U> {
            if (a.axes.packed(l.strides))
              return {l.data + first};
            U* const buffer = reinterpret_cast<U*>(buffers + used);
            used += piece * index_t(sizeof(U));
            U* at = buffer;
            // what is one element along several axes is so along one
            loop_axes<Rank> own = a.axes;
            index_list<Rank> own_strides = l.strides;
            join_axes(own, own_strides);
            own.for_each_run(first, n, own_strides,
                             [&](index_t offset, index_t run, index_t stride) {
                               const U* const from = l.data + offset;
                               if (stride == 1)
                                 for (index_t i = 0; i < run; ++i)
                                   at[i] = from[i];
                               else if (stride == 0)
                                 for (index_t i = 0; i < run; ++i)
                                   at[i] = *from;
                               else
                                 for (index_t i = 0; i < run; ++i)
                                   at[i] = from[i * stride];
                               at += run;
                             });
            return {buffer};
          });
      if (a.axes.packed(a.strides))
        return loop(lines, n, a.to + first);
      T* const buffer = reinterpret_cast<T*>(buffers + used);
      loop(lines, n, buffer);
      const T* from = buffer;
      a.axes.for_each_run(first, n, a.strides,
                          [&](index_t offset, index_t run, index_t stride) {
                            for (index_t i = 0; i < run; ++i)
                              a.to[offset + i * stride] = from[i];
                            from += run;
                          });
    }
    /// The loop over a piece. Its usual length is written as a constant, which lets compilers
    /// leave out the remainder.
    template <class Lines>
    static void loop(const Lines& lines, index_t n, T* to) {
      if (n == piece) {  // as many as the compiler knows
        MULTISTAGE_INDEPENDENT
        for (index_t i = 0; i < piece; ++i)
          to[i] = static_cast<T>(lines.at(i));
      } else {
        MULTISTAGE_INDEPENDENT
        for (index_t i = 0; i < n; ++i)
          to[i] = static_cast<T>(lines.at(i));
      }
    }
  };

  /// Runs on a backend: pieces of `piece` elements where memory is the host's, an element a
  /// thread elsewhere. It does not wait for a device.
  template <class Backend>
  void run(const Backend& b) const {
    const index_t n = axes.size();
    if (n == 0)
      return;
    if constexpr (Backend::on_host)
      b.for_each_index(divide_up(n, piece), by_piece{*this, n}, 16);
    else
      b.for_each_index(n, by_element{*this});
  }

  /// Axes of one element go; the others in the order of the result's memory, forwards; those
  /// that lie as one in every operand are joined.
  void simplify() {
    int n = 0;
    for (int k = 0; k < Rank; ++k)
      if (axes.extents[k] != 1)
        move_axis(k, n++);
    axes.count = n;
    for (int k = 0; k < n; ++k)
      if (strides[k] < 0)
        turn_round(k);
    for (int k = 1; k < n; ++k)
      for (int j = k; j > 0 && strides[j - 1] < strides[j]; --j)
        exchange(j - 1, j);
    for (int k = axes.count - 2; k >= 0; --k) {
      const auto joins = [&](const index_list<Rank>& s) {
        return s[k] == s[k + 1] * axes.extents[k + 1];
      };
      bool all = joins(strides);
      for_each_leaf(tree, [&](const auto& l) { all = all && joins(l.strides); });
      if (!all)
        continue;
      axes.extents[k] *= axes.extents[k + 1];
      each_strides([&](index_list<Rank>& s) {
        s[k] = s[k + 1];
        for (int j = k + 1; j + 1 < axes.count; ++j)
          s[j] = s[j + 1];
      });
      for (int j = k + 1; j + 1 < axes.count; ++j)
        axes.extents[j] = axes.extents[j + 1];
      --axes.count;
    }
  }

 private:
  /// f(strides) of the result and of every leaf.
  template <class F>
  void each_strides(F&& f) {
    f(strides);
    for_each_leaf(tree, [&](auto& l) { f(l.strides); });
  }
  /// An axis in another's place, in all strides.
  void move_axis(int from, int to_axis) {
    axes.extents[to_axis] = axes.extents[from];
    each_strides([&](index_list<Rank>& s) { s[to_axis] = s[from]; });
  }
  /// Two axes in each other's place.
  void exchange(int a, int b) {
    std::swap(axes.extents[a], axes.extents[b]);
    each_strides([&](index_list<Rank>& s) { std::swap(s[a], s[b]); });
  }
  /// Goes along an axis from its other end, in the result and in all operands.
  void turn_round(int k) {
    const index_t last = axes.extents[k] - 1;
    const auto turn = [&](auto& data, index_list<Rank>& s) {
      data += last * s[k];
      s[k] = -s[k];
    };
    turn(to, strides);
    for_each_leaf(tree, [&](auto& l) { turn(l.data, l.strides); });
  }
};

}  // namespace multistage::lazy
