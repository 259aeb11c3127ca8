// What lies in this folder, made by kernels/cuda/build.py.
[
    Source {
        name: "few",
        kernels: &[
            "few_eight",
            "few_sixteen",
            "few_exact",
        ],
        sm_80: &Image(*include_bytes!("few.sm_80.cubin")),
        sm_90a: &Image(*include_bytes!("few.sm_90a.cubin")),
        sm_120: &Image(*include_bytes!("few.sm_120.cubin")),
        compute_80: &Image(*include_bytes!("few.compute_80.ptx")),
    },
    Source {
        name: "recurrent",
        kernels: &[
            "recurrent_few",
        ],
        sm_80: &Image(*include_bytes!("recurrent.sm_80.cubin")),
        sm_90a: &Image(*include_bytes!("recurrent.sm_90a.cubin")),
        sm_120: &Image(*include_bytes!("recurrent.sm_120.cubin")),
        compute_80: &Image(*include_bytes!("recurrent.compute_80.ptx")),
    },
    Source {
        name: "recurrent_many",
        kernels: &[
            "recurrent_gates",
            "recurrent_scan",
        ],
        sm_80: &Image(*include_bytes!("recurrent_many.sm_80.cubin")),
        sm_90a: &Image(*include_bytes!("recurrent_many.sm_90a.cubin")),
        sm_120: &Image(*include_bytes!("recurrent_many.sm_120.cubin")),
        compute_80: &Image(*include_bytes!("recurrent_many.compute_80.ptx")),
    },
    Source {
        name: "rows",
        kernels: &[
            "add_norm",
            "norm_in_place",
            "layer_norm",
            "add_rows",
            "round_rows",
            "gelu_rows",
            "average_pool",
        ],
        sm_80: &Image(*include_bytes!("rows.sm_80.cubin")),
        sm_90a: &Image(*include_bytes!("rows.sm_90a.cubin")),
        sm_120: &Image(*include_bytes!("rows.sm_120.cubin")),
        compute_80: &Image(*include_bytes!("rows.compute_80.ptx")),
    },
]
