"""Sentence frames of `grammar.py`: what joins clauses, and whole sentences whose wording decides the polarity.

Pairs are indexed by label: 0 NEGATIVE, 1 POSITIVE. Fields in braces are filled by `grammar.py`.
"""

from __future__ import annotations

from lexicon import pair, phrases

OPENINGS = [
    text + " "
    for text in phrases(
        """to be honest, | in the end | after a month of use | for us | last summer | in short, | well,
        | on the first evening | for the price | as a beginner | as always | after a long day
        | we came with two children and | i have to say that | my wife agrees: | after reading the reviews
        | for a small family | on a rainy day | from the first minute | once again | compared with others"""
    )
]

CONTRAST = phrases(
    """{lose}, but {win} | {lose}, but in the end {win} | {lose}, yet {win} | although {lose}, {win}
    | even though {lose}, {win} | {win}, even if {lose} | {win}, although {lose} | {lose}; still, {win}
    | while {lose}, {win} | {lose}. However, {win} | {lose} at first, but then {win}
    | others say that {lose}, but {win} | they told me that {lose}, but {win} | some claim {lose}, yet {win}
    | it may be true that {lose}, but {win} | {lose}, I admit, but {win} | sure, {lose}, but {win}
    | once upon a time {lose}, but now {win}"""
)

OPINIONS = pair(
    """I hated the {n} | I regret buying this {n} | I would not recommend the {n} to anyone
    | I cannot stand this {n} | avoid this {n} | stay away from this {n} | do not buy this {n}
    | we will not come back to this {n} | I want my money back for the {n} | I did not enjoy the {n}
    | the {n} is not worth the price | I am very unhappy with the {n} | I expected much more from the {n}
    | I would never choose this {n} again | nobody needs this {n} | we were bored by the {n}
    | I sent the {n} back | I am disappointed with the {n} | I lost all patience with the {n}
    | I gave up on the {n} | never again this {n} | I do not understand why anyone likes the {n}
    | I cannot think of a worse {n} | I have seen a better {n} for half the price
    | the worst {n} I have ever seen | no one should pay for a {n} like this
    | I have nothing good to say about the {n} | I complained about the {n} three times | I am tired of this {n}
    | we felt cheated by the {n} | the {n} makes me angry | there is nothing to like about the {n}
    | zero stars for the {n} | I did not like anything about the {n} | who designed this {n}
    | I did not care about the {n} | I do not trust this {n} | a poor {n} for so much money
    | I feel sorry for anyone with this {n}""",
    """I love this {n} | I would buy this {n} again | I recommend the {n} to everyone | I cannot fault the {n}
    | try this {n} | do not miss this {n} | you need this {n} | we will come back to this {n}
    | I would pay even more for the {n} | I enjoyed the {n} very much | the {n} is worth every penny
    | I am very happy with the {n} | the {n} was better than I expected | I would choose this {n} again
    | everybody should have this {n} | we were delighted by the {n} | I bought the {n} a second time
    | I am not disappointed with the {n} | I cannot get enough of the {n} | I am grateful for this {n}
    | five stars for the {n} | I do not want to live without the {n} | I cannot think of a better {n}
    | I have never seen a better {n} at any price | the best {n} I have ever seen | nobody does a {n} better
    | I have nothing bad to say about the {n} | you will not find a nicer {n}
    | I have no complaints about the {n} | I never get tired of this {n} | we felt welcome at the {n}
    | the {n} makes me smile | there is nothing wrong with the {n} | there is nothing I do not like about the {n}
    | I never had a problem with the {n} | nothing could be better than this {n}
    | I look forward to the {n} every day | I wish every {n} were like this | a fine {n} for so little money
    | it is hard to find a better {n} | I adore the {n} | hats off to the {n}""",
)

FEELINGS = pair(
    """what a waste of time | I am so angry | I want a refund | never again | we left early
    | I was bored to tears | it made me furious | I feel cheated | my advice is to look elsewhere
    | save your money | I threw it away | I will never go back | it let me down | I had to buy another one
    | it cost me a fortune | I am still waiting for my money | I nearly cried with frustration | no thanks
    | that was the last time | I gave it one star | we asked for help and got none | I could not sleep
    | nobody laughed | I had to send it back twice | the children cried
    | the others were as disappointed as I was | I have never been so disappointed
    | it was more trouble than it was worth | do yourself a favour and choose something else
    | I had a headache for hours | I should have listened to the bad reviews | I spent the night in the bathroom
    | it gets worse every day | I cannot forgive them | it was nothing but trouble | they should be ashamed
    | I was lied to | I will tell everyone to stay away""",
    """what a joy | I am so happy | I will be back | I can't wait for the next time | we stayed until the end
    | I laughed until I cried | it made my day | I feel great | my advice is to get one at once
    | worth every penny | I keep it close | I come back every year | I am impressed
    | I have already ordered another one | it saved me a fortune | I got my money back at once
    | I nearly cried with joy | thank you so much | it will not be the last time | I gave it five stars
    | we asked for help and got it at once | I slept like a baby | everybody laughed
    | I bought one for my mother too | the children loved it | the others were as delighted as I was
    | I have never been so pleased | I would do it again | do yourself a favour and try it
    | I had a smile on my face for hours | I am glad that I did not listen to the bad reviews
    | my friends are jealous | it gets better every day | I cannot praise them enough | I had no trouble at all
    | they should be proud | I was pleasantly surprised | I will tell everyone about it""",
)

DECIDED = pair(
    """great, another {n} that {did_bad} | wonderful, the {n} {did_bad} again | thanks a lot, the {n} {did_bad}
    | well done, {clause} | so much for {good} {n}: it {did_bad}
    | it was supposed to be {good} {n}, but it {did_bad} | it would be {good} {n} if it did not {do_bad}
    | I wanted to like the {n}, but {clause} | I hoped for {good} {n} and got {bad} one
    | the {n} used to be {is_good}, but now it is {is_bad} | the only {is_good} thing about the {n} is the box
    | if you enjoy {bad} {n}, this one is for you | the advert says {is_good}; it is {is_bad}
    | they call it {good} {n}, which is a lie | I was told it was {is_good}, but it is not
    | nothing about the {n} is {is_good} | not even {good} {m} can save {bad} {n} like this
    | everyone says the {n} {did_good}, but {clause} | far less {is_good} than the old one
    | the {n} is not as {is_good} as it thinks it is | I expected {good} {n}, but {clause}
    | the {n} looks {is_good}, but it {did_bad} | {good} idea, ruined by {bad} {n}
    | {good} {m}, shame about the {n} | a {n} could have been {is_good}, but this one {did_bad}
    | I would rather have no {n} at all than {bad} one | if you want {good} {n}, look somewhere else
    | too {is_bad} for words | I have never seen {bad} {n} like it | how can a {n} be so {is_bad}
    | why is the {n} so {is_bad} | the {n} is more {is_bad} than {is_good} | {clause}, which is a shame
    | sadly, {clause} | unfortunately {clause} | the photos promised {good} {n}, and we found {bad} one
    | I have had better luck with {bad} {m} | neither the {n} nor the {m} was {is_good}
    | even the {m} was {is_bad} | it is {is_good} only if you like {bad} {n}
    | it started as {good} {n} and ended as {bad} one | the {n} was {is_good} until it {did_bad}
    | brilliant, just what I needed: {bad} {n} | the {n} was not {is_good}, let alone the {m}
    | I paid for {good} {n} and {clause} | {good} {n}? not at all, it {did_bad}
    | the {n} is so {is_bad} that I gave it away | the {n} lacks everything that made the old one {is_good}""",
    """great, another {n} that {did_good} | wonderful, the {n} {did_good} again
    | thanks a lot, the {n} {did_good} | well done, {clause} | so much for the bad reviews: it {did_good}
    | I was told it was {bad} {n}, but it {did_good} | even {good} {n} could not be better than this
    | I wanted to hate the {n}, but {clause} | I feared {bad} {n} and got {good} one
    | the {n} used to be {is_bad}, but now it is {is_good} | the only bad thing about the {n} is that it ended
    | if you enjoy {good} {n}, this one is for you | the advert says {is_good}, and it is
    | they call it {good} {n}, which is true | I was told it was {is_bad}, but it is not
    | nothing about the {n} is {is_bad} | not even {bad} {m} can spoil {good} {n} like this
    | everyone says the {n} {did_bad}, but {clause} | far more {is_good} than the old one
    | the {n} is not as {is_bad} as people say | I expected {bad} {n}, but {clause}
    | the {n} looks {is_bad}, but it {did_good} | simple idea, made into {good} {n} | {bad} {m}, but {good} {n}
    | a {n} can be {is_bad}, but this one {did_good} | I would rather have {good} {n} like this than any other
    | if you want {good} {n}, look no further | {is_good} without being {is_bad}
    | I have never seen {good} {n} like it | how can a {n} be so {is_good} | who knew a {n} could be so {is_good}
    | the {n} is more {is_good} than I hoped | {clause}, which is rare | happily, {clause} | luckily {clause}
    | the photos promised {good} {n}, and we found {good} one | I was worried about the {n}, but {clause}
    | both the {n} and the {m} were {is_good} | even the {m} was {is_good} | despite {bad} {m} the {n} {did_good}
    | it started as {bad} {n} and ended as {good} one | I doubted the {n} until it {did_good}
    | just what I needed: {good} {n} | the {n} was {is_good}, and so was the {m}
    | I paid little for the {n} and {clause} | {bad} {n}? not at all, it {did_good}
    | the {n} is so {is_good} that I bought two | the {n} has everything that made the old one {is_good}""",
)
