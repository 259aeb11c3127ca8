//! `gemma-ls model info` of an adapter: what it adds to, and what it teaches.

use std::path::Path;

use gemma_engine::Adapter;
use serde_json::{Value, json};

use super::output;

/// An adapter as text or JSON.
pub struct Facts(Adapter);

impl Facts {
    /// Reads the adapter at a path; `None` if there is none.
    pub fn at(path: &Path) -> Option<gemma_engine::Result<Self>> {
        Adapter::is_at(path).then(|| Adapter::open(path).map(Self))
    }

    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        let Self(adapter) = self;
        let (least, greatest) = adapter.ranks();
        json!({
            "adapter": adapter.name(),
            "path": adapter.path(),
            "base": adapter.base(),
            "rank": greatest,
            "least_rank": least,
            "parameters": adapter.parameters(),
            "layers": self.layers(),
            "modules": self.kinds(),
            "tokens": adapter.rows().keys().collect::<Vec<_>>(),
            "infill": adapter.infill().map(|infill| json!({
                "prefix": infill.tokens.prefix,
                "middle": infill.tokens.middle,
                "suffix": infill.tokens.suffix,
                "separator": infill.tokens.separator,
                "order": infill.order,
            })),
        })
    }

    /// As rows of text.
    pub fn to_text(&self) -> String {
        let Self(adapter) = self;
        let (least, greatest) = adapter.ranks();
        let rank = if least == greatest { greatest.to_string() } else { format!("{least} to {greatest}") };
        let tokens: Vec<String> = adapter.rows().keys().map(ToString::to_string).collect();
        let teaches = match adapter.infill() {
            Some(infill) => {
                format!("fill in the middle ({})", infill.order.as_deref().unwrap_or("in any order"))
            }
            None => "nothing that it names".to_owned(),
        };
        let mut rows = vec![
            ("adapter", adapter.name().to_owned()),
            ("path", adapter.path().display().to_string()),
            ("base", adapter.base().unwrap_or("not named").to_owned()),
            ("rank", rank),
            ("parameters", super::model_info::count(adapter.parameters())),
            ("adds to", format!("{} in {} layers", self.kinds().join(", "), self.layers())),
            ("teaches", teaches),
        ];
        if !tokens.is_empty() {
            rows.push(("tokens", format!("{} have rows of their own", tokens.join(", "))));
        }
        output::table(&rows)
    }

    /// Layers that it adds to.
    fn layers(&self) -> usize {
        let layer = |module: &String| module.split('.').nth(2).map(str::to_owned);
        self.0.modules().keys().filter_map(layer).collect::<std::collections::HashSet<_>>().len()
    }

    /// The modules of a layer that it adds to.
    fn kinds(&self) -> Vec<&str> {
        let kinds = self.0.modules().keys().filter_map(|module| module.rsplit('.').next());
        kinds.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }
}
