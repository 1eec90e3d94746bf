// Matching the tensor table with the tensors of a source: nothing missing, nothing unknown, every
// shape and dtype as declared.
#include <algorithm>
#include <unordered_set>

#include "model/config.h"
#include "model/tensor_table.h"

namespace sluice {

namespace {

constexpr size_t kMaxProblems = 1000;

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

bool dtype_accepted(DtypePolicy policy, DType dtype) {
  switch (policy) {
    case DtypePolicy::kBytes:
      return dtype == DType::kU8;
    case DtypePolicy::kLinear:
      if (dtype == DType::kF8E4M3) return true;
      [[fallthrough]];
    case DtypePolicy::kFloat:
      return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
  }
  return false;
}

std::string_view accepted_dtypes(DtypePolicy policy) {
  switch (policy) {
    case DtypePolicy::kBytes:
      return "U8";
    case DtypePolicy::kLinear:
      return "F32, F16, BF16 or F8_E4M3";
    case DtypePolicy::kFloat:
      return "F32, F16 or BF16";
  }
  return "";
}

// How well a way of storing fits the source.
enum class Fit { kAbsent, kBroken, kFits };

class Resolver {
 public:
  Resolver(const TensorTable& table, const TensorSource& source,
           const QuantizationConfig& quantization)
      : table_(table), source_(source), quantization_(quantization) {}

  Resolution run() {
    find_prefix();
    out_.rules.reserve(table_.rules.size());
    for (const TensorRule& rule : table_.rules) resolve_rule(rule);
    check_quantization();
    sweep();
    return std::move(out_);
  }

 private:
  void problem(std::string text) {
    if (out_.problems.size() < kMaxProblems) out_.problems.push_back(std::move(text));
  }

  std::string full_name(std::string_view name, int64_t expert) const {
    return stored_name(out_.prefix, name, expert);
  }

  // The prefix under which the embedding is found; the published one when there is none.
  void find_prefix() {
    for (const TensorRule& rule : table_.rules) {
      if (rule.role != TensorRole::kEmbedding) continue;
      for (const std::string& prefix : table_.prefixes) {
        out_.prefix = prefix;
        if (source_.find(full_name(rule.ways[0][0].names[0], 0)) != nullptr) return;
      }
    }
    out_.prefix = table_.prefixes.front();
  }

  const TensorView* find(const StoredTensor& stored, int64_t expert) const {
    for (const std::string& name : stored.names)
      if (const TensorView* view = source_.find(full_name(name, expert))) return view;
    return nullptr;
  }

  // One stored tensor: its view, or why not.
  ResolvedTensor take(const TensorRule& rule, const StoredTensor& stored, int64_t expert,
                      bool* present, std::vector<std::string>* problems) {
    ResolvedTensor tensor{.block_n = quantization_.block_n, .block_k = quantization_.block_k};
    tensor.view = find(stored, expert);
    if (tensor.view == nullptr) {
      problems->push_back(fmt::format("{}: tensor {} is missing (expected {})", source_.where(),
                                      full_name(stored.names.front(), expert),
                                      shape_text(stored_shape(rule, stored))));
      return tensor;
    }
    *present = true;
    const TensorView& view = *tensor.view;
    const auto say = [&](std::string_view text) {
      problems->push_back(fmt::format("{}: tensor {}: {}", view.file, view.name, text));
    };
    if (const std::vector<int64_t> want = stored_shape(rule, stored); view.shape != want) {
      const std::string per = stored.per_expert() ? " of one expert" : "";
      say(fmt::format("shape ({}{}): expected {}, got {}", rule.letters, per, shape_text(want),
                      shape_text(view.shape)));
      return tensor;
    }
    if (!dtype_accepted(stored.dtypes, view.dtype)) {
      say(fmt::format("dtype: expected {}, got {}", accepted_dtypes(stored.dtypes),
                      dtype_name(view.dtype)));
      return tensor;
    }
    if (view.dtype == DType::kF8E4M3) find_scale(rule, stored, &tensor, say);
    return tensor;
  }

  // fp8 weights have a scale beside them: one number, one per row, or one per block.
  template <class Say>
  void find_scale(const TensorRule& rule, const StoredTensor& stored, ResolvedTensor* tensor,
                  const Say& say) {
    const std::string& name = tensor->view->name;
    for (std::string_view suffix : {"_scale_inv", "_scale"})
      if (tensor->scale == nullptr) tensor->scale = source_.find(name + std::string(suffix));
    if (tensor->scale == nullptr) return say("is F8_E4M3 without a _scale_inv or _scale beside it");
    const TensorView& scale = *tensor->scale;
    if (!dtype_accepted(DtypePolicy::kFloat, scale.dtype))
      return say(fmt::format("scale: expected F32, F16 or BF16, got {}", dtype_name(scale.dtype)));
    if (!fp8_scale_layout(rule, stored, scale.shape, tensor->block_n, tensor->block_k))
      say(fmt::format("scale: expected one number, one per row, or blocks of {} x {}, got {}",
                      quantization_.block_n, quantization_.block_k, shape_text(scale.shape)));
  }

  Fit try_way(const TensorRule& rule, const StoredAs& way, ResolvedRule* resolved,
              std::vector<std::string>* problems) {
    bool present = false;
    resolved->rule = &rule;
    resolved->way = &way;
    resolved->tensors.clear();
    for (const StoredTensor& stored : way) {
      std::vector<ResolvedTensor> tensors;
      const int64_t copies = stored.per_expert() ? rule.experts : 1;
      for (int64_t e = 0; e < copies; ++e) {
        tensors.push_back(take(rule, stored, e, &present, problems));
        if (!present && e == 0 && &stored == &way.front()) break;  // surely another way
      }
      resolved->tensors.push_back(std::move(tensors));
    }
    if (!present) return Fit::kAbsent;
    return problems->empty() ? Fit::kFits : Fit::kBroken;
  }

  void resolve_rule(const TensorRule& rule) {
    std::vector<std::string> first_broken, first_absent;
    for (const StoredAs& way : rule.ways) {
      ResolvedRule resolved;
      std::vector<std::string> problems;
      const Fit fit = try_way(rule, way, &resolved, &problems);
      if (fit == Fit::kFits) {
        mark(resolved);
        out_.rules.push_back(std::move(resolved));
        return;
      }
      if (fit == Fit::kBroken) {
        mark(resolved);  // named wrongly shaped, not unknown
        if (first_broken.empty()) first_broken = std::move(problems);
      } else if (first_absent.empty()) {
        first_absent = std::move(problems);
      }
    }
    if (first_broken.empty() && rule.optional) return;
    for (std::string& p : first_broken.empty() ? first_absent : first_broken) problem(std::move(p));
  }

  void mark(const ResolvedRule& resolved) {
    for (const auto& tensors : resolved.tensors) {
      for (const ResolvedTensor& t : tensors) {
        if (t.view != nullptr) used_.insert(t.view);
        if (t.scale != nullptr) used_.insert(t.scale);
      }
    }
  }

  // config.json and tensors must tell the same story.
  void check_quantization() {
    bool fp8 = false, blocks = false, experts_as_floats = false;
    for (const ResolvedRule& r : out_.rules) {
      for (size_t i = 0; i < r.tensors.size(); ++i) {
        const bool bytes = (*r.way)[i].dtypes == DtypePolicy::kBytes;
        blocks |= bytes;
        fp8 |= r.tensors[i][0].view->dtype == DType::kF8E4M3;
        experts_as_floats |= r.rule->role == TensorRole::kExperts && r.rule->k > 0 && !bytes;
      }
    }
    const QuantMethod method = quantization_.method;
    const auto contradiction = [&](std::string_view says, std::string_view found) {
      problem(fmt::format("{}: config.json says quant_method {}, but {}", source_.where(), says,
                          found));
    };
    if (method == QuantMethod::kMxfp4 && (experts_as_floats || fp8))
      contradiction("mxfp4", "there are expert tensors without MXFP4 blocks");
    if (method == QuantMethod::kFp8 && blocks) contradiction("fp8", "the experts are MXFP4 blocks");
    if (method == QuantMethod::kFp8 && !fp8 && out_.problems.empty())
      contradiction("fp8", "no tensor is F8_E4M3");
  }

  // What no rule asked for: ignored by the family's list, or unknown.
  void sweep() {
    std::vector<std::string_view> unknown;
    for (const TensorView& view : source_.tensors()) {
      if (used_.count(&view) != 0) continue;
      const bool ignored =
          std::any_of(table_.ignored.begin(), table_.ignored.end(),
                      [&](const std::string& p) { return view.name.starts_with(p); }) ||
          view.name.ends_with(".rotary_emb.inv_freq");
      if (ignored)
        out_.ignored.push_back(&view);
      else
        unknown.push_back(view.name);
    }
    if (unknown.empty()) return;
    const size_t shown = std::min<size_t>(unknown.size(), 3);
    std::string names = fmt::format(
        "{}",
        fmt::join(unknown.begin(), unknown.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
    if (unknown.size() > shown) names += fmt::format(" and {} more", unknown.size() - shown);
    problem(fmt::format("{}: expected only tensors of this model type, got unknown {}",
                        source_.where(), names));
  }

  const TensorTable& table_;
  const TensorSource& source_;
  const QuantizationConfig& quantization_;
  std::unordered_set<const TensorView*> used_;
  Resolution out_;
};

}  // namespace

std::string stored_name(std::string_view prefix, std::string_view name, int64_t expert) {
  std::string full =
      name.front() == '/' ? std::string(name.substr(1)) : fmt::format("{}{}", prefix, name);
  if (const size_t at = full.find("{}"); at != std::string::npos)
    full.replace(at, 2, std::to_string(expert));
  return full;
}

std::vector<int64_t> stored_shape(const TensorRule& rule, const StoredTensor& stored) {
  const bool half = stored.part == TensorPart::kGate || stored.part == TensorPart::kUp;
  std::vector<int64_t> shape;
  for (char axis : stored.axes) {
    if (axis == 'E') shape.push_back(rule.experts);
    if (axis == 'N') shape.push_back(half ? rule.n / 2 : rule.n);
    if (axis == 'K') shape.push_back(rule.k);
    if (axis == 'B') shape.push_back(rule.k / 32);
    if (axis == 'b') shape.push_back(16);
    if (axis == '1') shape.push_back(1);
  }
  return shape;
}

std::optional<ScaleLayout> fp8_scale_layout(const TensorRule& rule, const StoredTensor& stored,
                                            const std::vector<int64_t>& shape, int64_t block_n,
                                            int64_t block_k) {
  const bool half = stored.part == TensorPart::kGate || stored.part == TensorPart::kUp;
  const int64_t n = half ? rule.n / 2 : rule.n, k = rule.k;
  const bool packed = stored.axes.front() == 'E', transposed = stored.axes.ends_with("KN");
  std::vector<int64_t> own = shape;  // of one expert
  ScaleLayout layout;
  if (packed && !own.empty() && own.front() == rule.experts && own.size() != 2) {
    own.erase(own.begin());
    layout.per_expert = true;
  }
  const int64_t bn = ceil_div(n, block_n), bk = ceil_div(k, block_k);
  using Shape = std::vector<int64_t>;
  if (own.empty() || own == Shape{1} || own == Shape{1, 1}) {
    layout.block_n = n;
    layout.block_k = k;
    layout.rows = layout.cols = 1;
  } else if (own == (transposed ? Shape{bk, bn} : Shape{bn, bk})) {
    layout.block_n = block_n;
    layout.block_k = block_k;
    layout.rows = bn;
    layout.cols = bk;
    layout.transposed = transposed;
  } else if (own == Shape{n} || own == Shape{n, 1}) {
    layout.block_n = 1;
    layout.block_k = k;
    layout.rows = n;
    layout.cols = 1;
  } else {
    return std::nullopt;
  }
  return layout;
}

Status Resolution::status() const {
  if (problems.empty()) return ok_status();
  if (problems.size() == 1) return invalid_argument("{}", problems.front());
  return invalid_argument("{}; and {} more problem{}", problems.front(), problems.size() - 1,
                          problems.size() == 2 ? "" : "s");
}

Resolution resolve(const TensorTable& table, const TensorSource& source,
                   const QuantizationConfig& quantization) {
  return Resolver(table, source, quantization).run();
}

}  // namespace sluice
