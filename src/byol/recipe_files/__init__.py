"""Packaged recipes: settings of `byol pretrain` as YAML."""
