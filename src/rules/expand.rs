//! Texts of rules: plain ones, and templates that are filled in for each alert.

use std::sync::Arc;

use crate::template::{QueryFunc, Template, TemplateData};

/// The text of a label or an annotation.
#[derive(Clone, Debug)]
pub struct Text {
    raw: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Template(Arc<Template>),
    /// It cannot be read as a template, for this reason.
    Broken(String),
}

impl PartialEq for Text {
    /// As they are written.
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Text {
    /// A text that stands for itself.
    pub fn plain(raw: &str) -> Self {
        Self { raw: raw.to_owned(), kind: Kind::Plain }
    }

    /// A text of the alert `alert`.
    ///
    /// # Errors
    /// Why it is no template, as Prometheus puts it.
    pub fn template(alert: &str, raw: &str) -> Result<Self, String> {
        if !raw.contains("{{") {
            return Ok(Self::plain(raw));
        }
        let template = Template::parse(&format!("__alert_{alert}"), raw)?;
        Ok(Self { raw: raw.to_owned(), kind: Kind::Template(Arc::new(template)) })
    }

    /// A text that was to be a template and is none.
    pub fn broken(raw: &str, error: &str) -> Self {
        Self { raw: raw.to_owned(), kind: Kind::Broken(error.to_owned()) }
    }

    /// As it is written.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Filled in; what went wrong on the way stands in its place and is handed to `failed`.
    pub fn expand(
        &self,
        data: &TemplateData<'_>,
        query: &dyn QueryFunc,
        failed: impl FnOnce(&str),
    ) -> String {
        let error = match &self.kind {
            Kind::Plain => return self.raw.clone(),
            Kind::Template(template) => match template.expand(data, query) {
                Ok(text) => return text,
                Err(error) => error,
            },
            Kind::Broken(error) => error.clone(),
        };
        failed(&error);
        format!("<error expanding template: {error}>")
    }
}
