"""A settings file of the research code with every key that it has, and what of it means nothing here."""

RESEARCH = """
road_network_encoder_config:
  road_id_num_embeddings:
  type_num_embeddings:
  zone_id_num_embeddings: 300
  road_id_emb_dim: 64
  len_emb_dim: 16
  type_emb_dim: 16
  lon_emb_dim: 16
  lat_emb_dim: 16
  intersection_emb_dim: 128
  zone_id_emb_dim: 128
road_network_encoder_feature:
  road_attr:
    len:
    type:
    lon:
    lat:
  road_edge_index:
  intersection_attr:
  zone_edge_index:
  zone_edge_weight:
trajectory_encoder_config:
  hidden_dim: 128
  num_heads: 2
  num_layers: 2
  dropout: 0.0
  max_len: 1024
  grad_checkpoint: false
navigator_config:
  hidden_dim: 128
optimizer_config:
  max_epoch: 25
  batch_size: 256      # 8x the baseline
  accum_steps: 4       # Effective batch size: 1024
  learning_rate: 0.001
  weight_decay: 0.1
  warmup_ratio: 0.1
  max_norm: 1.0
distill:
  enable: true
  repo: /path/to/LMTAD
  ckpt: /path/to/LMTAD/code/results/LMTAD/beijing_hoser_reference/run/weights_only.pt
  window: 4            # Reduced from 32 for faster teacher inference
  lambda: 0.01
  temperature: 2.0
  grid_size: 0.001
  downsample: 1
  dtype: float16
  verbose: false
  sample_steps_per_trace: 0
  verify_grid_dims: true
data_dir: /data/HOSER-dataset
dataloader:
  num_workers: 16
  pin_memory: true
  prefetch_factor: 2
  persistent_workers: true
  timeout: 60
data:
  candidate_top_k: 0
training:
  seed: 43
  allow_tf32: true
  cudnn_benchmark: true
  torch_compile: true
  torch_compile_mode: max-autotune
  disable_cudagraphs: true
profiling:
  enable: true
  log_interval: 100
wandb:
  enable: true
  project: hoser-distill-optuna
  run_name: ''
  tags: [optuna, distill-tuning, beijing]
optuna:
  n_trials: 12
  max_epochs: 8
  pruner:
    min_resource: 5
    reduction_factor: 3
  sampler:
    sampler_type: cmaes
    seed: 42
  search_space:
    lambda_min: 0.001
    lambda_max: 0.1
    lambda_log: true
    temp_min: 1.0
    temp_max: 5.0
    window: {min: 2, max: 8}
  vanilla_baseline_pretune: {enabled: false, max_epochs: 8, seeds: [42]}
  final_run:
    enabled: true
    max_epochs: 25
    seeds: [42, 43, 44]
  vanilla_baseline: {enabled: true, max_epochs: 25, seeds: [42, 43, 44]}
"""

NO_EFFECT = [
    "road_network_encoder_config.intersection_emb_dim",
    "distill.repo",
    "distill.dtype",
    "distill.verbose",
    "distill.sample_steps_per_trace",
    "distill.verify_grid_dims",
    "dataloader.num_workers",
    "dataloader.pin_memory",
    "dataloader.prefetch_factor",
    "dataloader.persistent_workers",
    "dataloader.timeout",
    "optuna",
]
