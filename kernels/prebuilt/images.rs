// What lies in this folder, made by kernels/cuda/build.py.
[
    Source {
        name: "rows",
        kernels: &[
            "add_rows",
        ],
        sm_80: &Image(*include_bytes!("rows.sm_80.cubin")),
        sm_90a: &Image(*include_bytes!("rows.sm_90a.cubin")),
        sm_120: &Image(*include_bytes!("rows.sm_120.cubin")),
        compute_80: &Image(*include_bytes!("rows.compute_80.ptx")),
    },
]
