from data_prep.benchmark_prompts import multiple_choice_prompt, open_prompt, yes_no_prompt


def test_multiple_choice_is_vlmevalkits_wording():
    prompt = multiple_choice_prompt("Which shape is red?", {"A": "circle", "B": "star"})

    assert prompt == (
        "Question: Which shape is red?\nOptions:\nA. circle\nB. star\nPlease select the correct answer from the options above."
    )


def test_a_hint_stands_above_the_question():
    prompt = multiple_choice_prompt("How many?", {"A": "1"}, hint="Count them.")

    assert prompt.splitlines()[:2] == ["Hint: Count them.", "Question: How many?"]


def test_without_options_nothing_is_to_be_chosen():
    assert multiple_choice_prompt("How many?", {}) == "Question: How many?"


def test_chinese_anywhere_in_the_text_changes_the_last_sentence():
    assert multiple_choice_prompt("Which?", {"A": "红色"}) == "Question: Which?\nOptions:\nA. 红色\n请直接回答选项字母。"


def test_yes_no_and_open_questions():
    assert yes_no_prompt("Is it red?") == "Is it red? Please answer yes or no."
    assert open_prompt("What is it?") == "What is it?"


def test_mmmu_asks_in_english_whatever_the_text():
    prompt = multiple_choice_prompt("<image 1> 图?", {"A": "红色"}, always_english=True)
    assert prompt == "Question: <image 1> 图?\nOptions:\nA. 红色\nPlease select the correct answer from the options above."
