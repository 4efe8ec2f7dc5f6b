//! Tokens that another implementation (OpenSSL) signed with one key of 2048 bits.

pub(super) const MODULUS: &str = concat!(
    "wMSHEH7grLom__uD35uns_eVvXxclxc4hlzphq3O_WcT6prIwD5fY25lxF-7VL5P7H7GO58WGcKPFkIdMrHaEDzjkeSQ-dtiIbvh",
    "1mJdcjlDLpvFaOUPe8hxwMzBzDPTfNrRlowSqBwzdsOCX8ylRpuG89iBt4X2Q4bVllaY3cVYowg4XVj7MiCZ58BQc5ZMytbD_Vbw",
    "_TXr7Q5hFzqZaz1vQHmic03NzVAXZNPNdHWsPvLlz7KgMaVa1b0E8TCCx_GRIH7ohBmexIn92G5Qb3hwzOhTIWQP7KFX0o7HwEiS",
    "6HNwIuiPxtUEEdh8Odozf5JaJectXZR3TTRvUgHNuQ"
);

pub(super) const TOKENS: [(&str, &str); 3] = [
    (
        "RS256",
        concat!(
            "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJhbm5hIn0.EDRQBiyxe7XSm2MuPTJE9nDLM3is5-OqDWuRYkU-PwF",
            "LUFlUHw3Dfu1tlPnbITuNRSyyjztO9Ci2GS7e2qeZyiopyzuqTa6Spck6YnnVxC0rZu1ZpYsWU8lZSfLiB0jJ_cmZQsJ8wvyd-ER",
            "3r2kFkvsnKQBsIS-ZgCJWm6t-x6KaOOsJ1TCRYdJhiCo8M-g-YN4cMne80c5QHB0vlw9FQMZ273fg2QaaWhZNFtXYRUBmJSNwEpb",
            "zJTHfVRhJbmJ7jcEm0dXVJWf60J7nuFhcDfTNcImPO_Mj6q9AJDs4fY8pouewD-DKUq255A9SFBBVsGAxCu4V850ApGxfIhIttQ"
        ),
    ),
    (
        "RS512",
        concat!(
            "eyJhbGciOiJSUzUxMiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJhbm5hIn0.A9DZn_hZ78co_YP6mbQ255-HwaMwV2YyT0Rkl8DUq2f",
            "Qs9sRV8KzKX2QlS_3or9hTlc3OFyHHHIpRfhfQfddhqFcEY-Ia1GXYGseprDIP88zn9Po743LtBQozyS9XPBf6_uQyJ04wGm7w81",
            "VasMLcQOfGDzktWSm-8X7RakGhgwC6ATKPTCpVfu1Htp7bgKHSM0fLvf3FgymGL-TBdLB1zeqxp6PvPyScDMAGSyCz7Jrmgg78uh",
            "Odfpbtex2DFRedfVgJ0t5hWRjpg0Y-8vb6ut-o46R_GfSdd0IbmsOVMj8_CQvdh5VY6ON7p1ahIrfQCCpB9su6AXq3tgv8txSiQ"
        ),
    ),
    (
        "PS256",
        concat!(
            "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJhbm5hIn0.KNXjloZGcQxjaLJ6RiO0L9_zeftUa8__A_L_vZTqi5E",
            "y0VSXC6bj6d9fDRbfxzsAGT0x9F6TXiU23nWSv9GUf3egIJssj5AovsN1qPzrSJDt1_i9pS65lyoheLYxCcoxjkODmAy5r6bhI7v",
            "fSDdfYfF4lmsbf3INsIZCoc-LzR36Xaj0G2dGQjuSFwlUMWBzxdpqOuFmm4Swnr-ii-CrONNdlKE4Yc6B0Oi7SYbca9BMog8rRNp",
            "izEnDsXdF_TdtmxZKzQhQxazv8aDmMep5c76RxtYaCgAKtANj5jYoGiI714vU2rwNNX50Ajl6npJ2M6sFmUdxtrhnp9XFXLKiJQ"
        ),
    ),
];
