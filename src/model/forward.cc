// One step of the whole model. Branches on the spec, never on a brand; no arithmetic of its own.
#include "model/forward.h"

#include "model/branches.h"
#include "ops/embed/embed.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"

namespace sluice {
namespace {

struct Step {
  Status run();
  Status pre_norm_layer(const LayerSpec& l, const LayerWeights& w, int layer);
  Status sandwich_layer(const LayerSpec& l, const LayerWeights& w, int layer);
  Status norm_then_add(const F32Vector& weight, float scale) const;
  Status head() const;

  const ExecContext& c_;
  const Model& m_;
  const Batch& b_;
  ForwardState::Impl& s_;
  const Tap* tap_;
  Branches on_;
};

// h += attn(norm(h)); h += ffn(norm(h))
Status Step::pre_norm_layer(const LayerSpec& l, const LayerWeights& w, int layer) {
  const MatrixF32 hidden = on_.stream(s_.hidden), normed = on_.stream(s_.normed),
                  branch = on_.stream(s_.branch);
  SLUICE_RETURN_IF_ERROR(on_.norm(hidden, w.input_norm.data(), normed));
  SLUICE_RETURN_IF_ERROR(on_.attend(l.attention, w.attention));
  SLUICE_RETURN_IF_ERROR(rms_norm(c_, {.mode = RmsNormMode::kResidualThenNorm,
                                       .x = branch,
                                       .weight = w.post_attention_norm.data(),
                                       .eps = m_.spec.eps,
                                       .residual = hidden,
                                       .out = normed}));
  if (l.dense) {
    SLUICE_RETURN_IF_ERROR(on_.dense(*l.dense, w.dense));
    return add(c_, hidden, branch);
  }
  SLUICE_RETURN_IF_ERROR(on_.route(*l.moe, w.moe, normed, layer, tap_));
  MoeExpertsArgs args = on_.experts(*l.moe, w.moe);
  args.then = CombineThen::kResidualAdd;
  args.residual = hidden;
  return moe_experts(c_, args, s_.workspace);
}

// h += norm(attn(norm(h))); h = (h + norm(sum of normed branches)) * layer_scalar. The router reads
// the raw residual through its own norm, never the experts' input.
Status Step::sandwich_layer(const LayerSpec& l, const LayerWeights& w, int layer) {
  const MatrixF32 hidden = on_.stream(s_.hidden), normed = on_.stream(s_.normed),
                  branch = on_.stream(s_.branch);
  SLUICE_RETURN_IF_ERROR(on_.norm(hidden, w.input_norm.data(), normed));
  SLUICE_RETURN_IF_ERROR(on_.attend(l.attention, w.attention));
  SLUICE_RETURN_IF_ERROR(norm_then_add(w.post_attention_norm, 1.0f));
  if (l.dense) {
    SLUICE_RETURN_IF_ERROR(on_.norm(hidden, w.pre_feedforward_norm.data(), normed));
    SLUICE_RETURN_IF_ERROR(on_.dense(*l.dense, w.dense));
  }
  if (l.moe) {
    SLUICE_RETURN_IF_ERROR(on_.norm_for_router(hidden, w.moe, normed));
    SLUICE_RETURN_IF_ERROR(on_.route(*l.moe, w.moe, normed, layer, tap_));
    SLUICE_RETURN_IF_ERROR(on_.norm(hidden, w.pre_feedforward_norm_2.data(), normed));
    MoeExpertsArgs args = on_.experts(*l.moe, w.moe);
    args.then = CombineThen::kRmsNorm;
    args.norm_weight = w.post_feedforward_norm_2.data();
    args.out = branch;
    if (l.dense) {  // the norms of both branches, their sum and the residual in the same pass
      args.then = CombineThen::kBranches;
      args.out = on_.stream(s_.second);
      args.residual = hidden;
      args.branches = {branch, w.post_feedforward_norm_1.data(), w.post_feedforward_norm.data(),
                       w.layer_scalar};
      return moe_experts(c_, args, s_.workspace);
    }
    SLUICE_RETURN_IF_ERROR(moe_experts(c_, args, s_.workspace));
  }
  return norm_then_add(w.post_feedforward_norm, w.layer_scalar);
}

// residual = (residual + norm(branch)) * scale
Status Step::norm_then_add(const F32Vector& weight, float scale) const {
  return rms_norm(c_, {.mode = RmsNormMode::kNormThenResidual,
                       .x = on_.stream(s_.branch),
                       .weight = weight.data(),
                       .eps = m_.spec.eps,
                       .scale = scale,
                       .residual = on_.stream(s_.hidden)});
}

// Final norm and head, for the rows that want logits only.
Status Step::head() const {
  s_.logit_rows = static_cast<int64_t>(b_.logit_rows.size());
  if (s_.logit_rows == 0) return ok_status();
  const MatrixF32 logits(s_.logits, s_.logit_rows, m_.spec.vocabulary);
  SLUICE_RETURN_IF_ERROR(
      on_.norm(on_.stream(s_.hidden), m_.final_norm.data(), on_.stream(s_.normed)));
  SLUICE_RETURN_IF_ERROR(matmul(c_,
                                {.arith = on_.arith(m_.head),
                                 .x = on_.stream(s_.normed),
                                 .rows = b_.logit_rows,
                                 .w = &m_.head,
                                 .out = logits},
                                s_.workspace));
  return m_.spec.final_softcap > 0 ? softcap(c_, logits, m_.spec.final_softcap) : ok_status();
}

Status Step::run() {
  const ModelSpec& spec = m_.spec;
  const MatrixF32 hidden = on_.stream(s_.hidden);
  SLUICE_RETURN_IF_ERROR(embed(c_, {b_.ids, &m_.embedding, spec.embed_scale, hidden}));
  for (size_t r = 0; r < spec.ropes.size(); ++r)
    SLUICE_RETURN_IF_ERROR(rope_angles(
        c_, {b_.positions, spec.ropes[r].inv_freq, spec.ropes[r].factor, s_.cos_sin[r]}));
  SLUICE_RETURN_IF_ERROR(on_.show_hidden(tap_, 0));
  for (int i = 0; i < static_cast<int>(spec.layers.size()); ++i) {
    const LayerSpec& l = spec.layers[static_cast<size_t>(i)];
    const LayerWeights& w = m_.layers[static_cast<size_t>(i)];
    const Status status =
        l.norms == NormPlacement::kPre ? pre_norm_layer(l, w, i) : sandwich_layer(l, w, i);
    if (!status.ok()) return status.annotate(fmt::format("layer {}", i));
    SLUICE_RETURN_IF_ERROR(on_.show_hidden(tap_, i + 1));
  }
  return head();
}

}  // namespace

Status forward(const ExecContext& context, const Model& model, const Batch& batch,
               ForwardState& state, const Tap* tap) {
  ForwardState::Impl& s = state.impl();
  if (static_cast<int64_t>(batch.ids.size()) > s.max_tokens ||
      static_cast<int64_t>(batch.logit_rows.size()) > s.max_logit_rows)
    return invalid_argument(
        "forward: {} tokens and {} logit rows, the state has room for {} and {}", batch.ids.size(),
        batch.logit_rows.size(), s.max_tokens, s.max_logit_rows);
  if (batch.groups.size() != model.spec.kv_groups.size())
    return invalid_argument("forward: {} KV groups in the batch, the model has {}",
                            batch.groups.size(), model.spec.kv_groups.size());
  if (batch.ids.empty()) return ok_status();
  return Step{context, model, batch, s, tap, Branches(context, model, batch, s)}.run();
}

}  // namespace sluice
