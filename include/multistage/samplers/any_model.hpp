// A model as a value, whatever it computes in and on: what drawing asks of it. Samplers are
// then compiled once, for the backend that they walk on, and the network may be another's whose
// memory that backend reaches: of eigen, of Thrust's host systems.
//
//   any_model model = load<float>("model.safetensors", eigen());
//   sample(model, edm_heun{}, {.seeds = "0-15"});     // walks on cpu, evaluates on eigen
#pragma once
#include <functional>
#include <memory>
#include <string_view>

#include "model_denoiser.hpp"

namespace multistage {

/// What a batch's network is told of its rows.
struct told_rows {
  std::span<const int> classes;         ///< of each row; -1: none
  const std::vector<double>& contexts;  ///< of all pictures, @see labels_of_rows
  index_t first;                        ///< which picture the batch's first row is
};

/// A model of any type. Copies are the same model.
class any_model {
 public:
  /// Takes the model.
  template <class Scalar, class Backend>
  any_model(dynamic_model<Scalar, Backend>&& taken)
      : held_(std::make_shared<of<dynamic_model<Scalar, Backend>, Scalar, Backend>>(
            std::move(taken))) {}
  /// Refers to a model, which must outlive it.
  template <class Scalar, class Backend>
  any_model(std::reference_wrapper<dynamic_model<Scalar, Backend>> referred)
      : held_(std::make_shared<
              of<std::reference_wrapper<dynamic_model<Scalar, Backend>>, Scalar, Backend>>(
            referred)) {}

  /// Extents of a batch.
  shape images(index_t rows) const {
    return held_->images(rows);
  }
  /// Which noise levels each stage has.
  const partition& stages() const {
    return held_->stages();
  }
  /// What it was trained with.
  const training_facts& trained() const {
    return held_->trained();
  }
  /// How many values an input has in a row; 0 where the model has none.
  index_t label_dim(input_slot slot) const {
    return held_->label_dim(slot);
  }
  /// The name of what it computes on.
  std::string_view backend_name() const {
    return held_->backend_name();
  }
  /// Whether that is on the host, where every host backend reaches its memory.
  bool on_host() const {
    return held_->on_host();
  }
  /// Takes the model for the calling thread, as dynamic_model::use does.
  one_user::visit use() const {
    return held_->use();
  }
  /// D for one walk of a batch. @param counter told of each evaluation; null: nobody is.
  /// @param reuse of the encoder's features, where it acts. @param interrupted at which noise
  /// levels the network is used in between; none: nowhere
  /// @throws value_error, shape_error for what the model does not know
  any_denoiser denoiser(const told_rows& rows,
                        evaluation_counter* counter = nullptr,
                        const encoder_reuse& reuse = {},
                        std::function<bool(double)> interrupted = {}) const {
    return held_->denoiser(rows, counter, reuse, std::move(interrupted));
  }

 private:
  struct any {
    virtual ~any() = default;
    virtual shape images(index_t rows) const = 0;
    virtual const partition& stages() const = 0;
    virtual const training_facts& trained() const = 0;
    virtual index_t label_dim(input_slot slot) const = 0;
    virtual std::string_view backend_name() const = 0;
    virtual bool on_host() const = 0;
    virtual one_user::visit use() const = 0;
    virtual any_denoiser denoiser(const told_rows& rows,
                                  evaluation_counter* counter,
                                  const encoder_reuse& reuse,
                                  std::function<bool(double)> interrupted) = 0;
  };
  /// @tparam Held the model or a reference to it
  template <class Held, class Scalar, class Backend>
  struct of final : any {
    using model_type = dynamic_model<Scalar, Backend>;
    Held held;

    explicit of(Held h) : held(std::move(h)) {}
    model_type& model() {
      return held;
    }
    const model_type& model() const {
      return held;
    }
    shape images(index_t rows) const override {
      return model().images(rows);
    }
    const partition& stages() const override {
      return model().stages();
    }
    const training_facts& trained() const override {
      return model().trained();
    }
    index_t label_dim(input_slot slot) const override {
      return model().label_dim(slot);
    }
    std::string_view backend_name() const override {
      return Backend::name;
    }
    bool on_host() const override {
      return Backend::on_host;
    }
    one_user::visit use() const override {
      return model().use();
    }
    MULTISTAGE_COLD any_denoiser denoiser(const told_rows& rows,
                                          evaluation_counter* counter,
                                          const encoder_reuse& reuse,
                                          std::function<bool(double)> interrupted) override {
      using network = model_denoiser<Scalar, Backend>;
      network d(model(), labels_of_rows(model(), rows.classes, rows.contexts, rows.first),
                counter);
      if (reuse.every == 1)
        return any_denoiser(std::move(d));
      return any_denoiser(reusing<network>(std::move(d), reuse, std::move(interrupted)));
    }
  };

  std::shared_ptr<any> held_;
};

}  // namespace multistage
