"""Raw multimodal corpora -> tokenized arrow shards (Ray)."""
