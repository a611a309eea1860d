

def test_a_comparison_and_a_recommendation_are_printed_as_tables(tmp_path):
    data = harness.load_dataset("stdlib", documents=60, queries=20)
    results = harness.evaluate(["bm25", "bm25 k1=0.9"], data)
    comparison = repr(results.compare("bm25", "bm25 [k1=0.9]"))
    assert comparison.startswith("A: bm25, B: bm25 [k1=0.9], ndcg@10\n")
    assert "won/tied/lost" in comparison
    recommendation = repr(results.recommend(max_index_mb=100))
    assert recommendation.startswith("take bm25")
    assert "mean over stdlib" in recommendation
    by_config = results.compare("bm25", "bm25 k1=0.9")
    assert repr(by_config) == comparison
