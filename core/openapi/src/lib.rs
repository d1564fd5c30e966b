//! OpenAPI schemas as data: defaulting, pruning, validation, merge patches and server-side apply.
