//! Ditto Query Language: lexer, parser, evaluator on documents; no I/O, no DataFusion
