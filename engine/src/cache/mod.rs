//! The prefix cache: keys and values kept between requests.
