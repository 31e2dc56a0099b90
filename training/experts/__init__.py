"""Safety experts: LoRAs as values and as files, on a UNet, extracted from a tuned model, and described.

`low_rank` is the update of one layer. `lora_keys`, `convolutions` and `lora_file` read and write LoRA files
of any dialect: `layer_names` knows their names of layers, `peft_config` and `path_pattern` what PEFT states
beside them, `lora_parts` what else they hold, and `origin` which base model they are for. `expert` is a whole
LoRA with its categories and metadata. `adapter` trains one on a UNet,
`applied` draws with one, `extract` and `factor` compute one from two models, and `merge_facts` and `report`
describe one.

To read another dialect of LoRA keys, add its endings in `lora_keys` and its names in `layer_names`.
"""
