//! The executable specification of network policy: evaluate(view, packet).
