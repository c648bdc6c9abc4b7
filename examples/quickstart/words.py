"""Single words of `grammar.py`: broad lists of polar words, and neutral words that must not decide anything.

Pairs are indexed by label: 0 NEGATIVE, 1 POSITIVE.
"""

from __future__ import annotations

from lexicon import pair, phrases

QUALITIES = pair(
    """abysmal | absurd | amateurish | angry | atrocious | baffling | banal | blunt | botched | brittle | bulky
    | careless | cheap | clunky | contrived | corny | corrupt | crude | cruel | cursed | cynical | damaged
    | deceptive | deaf | dishonest | dismal | distorted | dodgy | drab | faceless | fake | false | feeble | foul
    | fussy | garbled | ghastly | grim | grubby | grotesque | gruesome | half baked | hateful | heartless
    | hideous | hollow | horrid | hostile | humourless | idiotic | illogical | inaccurate | inconsistent | inept
    | infuriating | insulting | irritating | jumbled | laughable | lame | leaky | listless | ludicrous | mangled
    | mindless | misleading | monotonous | nasty | nauseating | obnoxious | offensive | painful | petty
    | plodding | poisonous | preposterous | rickety | ridiculous | sad | senseless | shaky | shameful | shoddy
    | sickening | sour | squeaky | stingy | stuck | sulky | suspicious | tacky | tasteless | tired | toxic
    | trashy | tricky | trite | uneven | unfair | unfinished | unfocused | uninspired | unreadable | unwatchable
    | upsetting | useless | vague | vile | violent | warped | wasted | weary | worn out | worse | wretched
    | wrong | aimless | crippled | hopeless""",
    """accomplished | adorable | affordable | agile | alive | ambitious | amusing | astonishing | atmospheric
    | authentic | balanced | blissful | bold | brave | calming | captivating | carefree | celebrated | classy
    | clean | coherent | convenient | convincing | cool | crafty | crisp | dazzling | decent | dependable
    | detailed | dignified | eloquent | enchanting | energetic | engaging | enlightening | epic | exceptional
    | exquisite | exhilarating | faithful | fabulous | favourite | fearless | fine | flexible | focused | fun
    | genuine | gifted | glorious | graceful | gracious | grand | happy | harmonious | healthy | helpful | humane
    | ideal | immaculate | incredible | ingenious | innovative | insightful | instructive | intelligent
    | inventive | inviting | joyful | joyous | likeable | lively | lucid | luminous | luxurious | majestic
    | masterly | meaningful | merry | neat | nice | noble | optimistic | orderly | passionate | phenomenal
    | playful | polished | precise | priceless | profound | proud | pure | quaint | radiant | refined | relaxed
    | rewarding | robust | safe | seamless | secure | sensible | sensitive | serene | simple | sleek
    | sophisticated | speedy | spectacular | stable | sublime | subtle | sunny | supportive | sweet | tidy
    | timeless | top | tranquil | trustworthy | uplifting | useful | valuable | versatile | vibrant | vivid
    | wise | witty | wonderful | young at heart | heavenly | magnetic | spotless | fresh""",
)

DEEDS = pair(
    """ruined | spoiled | wrecked | destroyed | wasted | damaged | broke | ignored | insulted | neglected | lost
    | killed | betrayed | cheated | mocked | disappointed | annoyed | angered | confused | frightened | poisoned
    | scratched | burned | soaked | stained | ripped up | crushed | denied | refused | failed | bored
    | embarrassed | tortured | robbed | stole | botched | mishandled | messed up | abandoned | hurt | irritated
    | frustrated | upset | cancelled | butchered | flooded | deceived | exhausted | harmed | forgot | blamed""",
    """saved | improved | rescued | restored | brightened | fixed | repaired | enriched | protected | healed
    | welcomed | calmed | delighted | amazed | charmed | pleased | inspired | thrilled | amused | comforted
    | encouraged | transformed | enhanced | honoured | cured | perfected | impressed | treasured | celebrated
    | reassured | warmed | lifted | cheered up | refreshed | supported | upgraded | respected | pampered
    | entertained | completed | surprised | solved | won over | captivated | enchanted | blessed | dazzled""",
)

OBJECTS = phrases(
    """my day | our evening | the whole weekend | my mother | the children | our guests | my week | the morning
    | our trip | my kitchen | the house | my back | our party | my friends | the audience | my work | our plans
    | his wife | her birthday | my order | me | us | everybody | the family | our wedding | my mood
    | the neighbours | his father | my skin | our home | the customers | my phone"""
)

MATTERS = pair(
    """an insult | a nuisance | a bore | a flop | a fraud | a lie | a trap | a shambles | a scam | a torment
    | a torture | a catastrophe | a fiasco | a pain | a headache | a chore | a burden | an eyesore
    | an embarrassment | a farce | a scandal | a failure | a regret | junk | garbage | trash | nonsense
    | a muddle | chaos | a hazard | a bad joke | an error | a missed chance | a dead end | an ordeal | a bother""",
    """a treat | a hit | a winner | a marvel | a miracle | a jewel | a blessing | a breeze | heaven | paradise
    | a success | a star | a classic | an inspiration | a celebration | a comfort | a relief | a highlight
    | a favourite | a wonder | a must | a revelation | a gift | a feast | a small miracle | pure magic
    | great fun | an achievement | a work of art | a steal | a discovery | a model for others | a thrill""",
)

MANNERS = pair(
    """badly | poorly | carelessly | clumsily | horribly | terribly | awkwardly | lazily | hopelessly | sloppily
    | cheaply | rudely | painfully | dreadfully | unfairly | wrongly | miserably | crudely | endlessly badly
    | stupidly | roughly | awfully | shamefully""",
    """well | beautifully | brilliantly | perfectly | wonderfully | superbly | carefully | elegantly | cleverly
    | lovingly | skilfully | nicely | expertly | gracefully | flawlessly | smoothly | tastefully | generously
    | kindly | warmly | thoughtfully | honestly | splendidly""",
)

DONE = phrases(
    """made | written | built | designed | run | organised | acted | filmed | told | sung | translated
    | explained | finished | cooked | served | packed | printed | lit | directed | edited | managed | planned
    | painted | sewn | assembled | structured | kept | treated | paced"""
)

PARTS = phrases(
    """screen | battery | handle | button | plug | lid | sound | picture | cable | blade | brakes | saddle
    | wheel | engine | motor | filter | switch | hinge | drawer | leg | strap | zip | seam | fabric | sleeve
    | colour | size | smell | texture | sole | cover | corner | plot | dialogue | acting | script | music | cast
    | camera work | page | chapter | scene | rhythm | bass | voice | hero | villain | joke | ending | title
    | rooms | bed | sheets | bathroom | shower | view | balcony | terrace | pool | breakfast | service
    | atmosphere | waiting room | counter | parking | entrance | garden | broth | filling | crust | chips
    | vegetables | sauce | menu | bill | portion | map | manual | packaging | price | warranty | booking
    | check-in | website | signal | volume | speed | weight | design | idea | result | advice | recipe | sign
    | seats | windows | acoustics | exhibits | audience | crew | neighbours | machines | instructions
    | subscription | account | refund"""
)

SETTINGS = phrases(
    """in August | last winter | since Christmas | on Sunday | before lunch | after four months | for nine years
    | on the balcony | in the middle of the night | in our town | from the shop around the corner | with my wife
    | with two toddlers | at work | at home | on the train | in the rain | in the kitchen | this morning
    | yesterday | in a single day | for my birthday | at the party | every week | after the first page
    | by the sea | under the seat | at the airport | during the storm | at the age of eighty
    | on the second floor | by email | on the phone | in the car park | in front of everyone | on my first visit
    | for the third time | six weeks ago | all summer | from start to finish | within an hour | for ten minutes
    | in my opinion | as far as I know | like the rest of us | with my old laptop | without any training
    | on the way home | near the station | for thirty guests | in the office | in spring | when it was dark
    | while we were there | as a student | at eleven at night | with a glass of wine | on paper | online
    | next to the theatre"""
)

NEUTRAL_ADJECTIVES = phrases(
    """small | old | new | large | red | blue | second | first | last | next | early | local | usual | low | long
    | short | young | whole | other | front | back | main | wooden | second-hand | black | white | simple
    | low-budget | poor | dark | difficult | rainy | cold"""
)

NEUTRAL_NOUNS = phrases(
    """summer | winter | morning | box | door | road | kitchen | town | child | friend | sister | brother
    | grandfather | wife | husband | office | shop | beach | train | page | scene | song | button | lid | wheel
    | table | window | colleague | year | month | week | dog | cat | neighbour | city | village | forest | school
    | lesson | start | end | breakfast | cellar | balcony | carpet | wall | roof | bag | crowd | holiday | party
    | harbour | mountain | bottle | glass | phone | letter | email | review | ticket | queue | box office
    | counter"""
)

PREPOSITIONS = phrases(
    "in | on | at | from | with | after | before | during | near | for | under | behind | despite | even in | since | by | like"
)

LIKES = pair(
    """hate | hated | loathe | regret | dislike | despise | cannot stand | did not like | didn't like
    | did not enjoy | don't like | resent | am sick of | was tired of | was bored by | was annoyed by
    | was shocked by | complained about | would not buy | would never choose | gave up on | returned | got rid of
    | am disappointed by | have had enough of | do not trust | cannot recommend | feel cheated by""",
    """love | loved | adore | enjoy | enjoyed | like | liked | am fond of | cannot praise enough | am happy with
    | was moved by | treasure | was impressed by | was thrilled by | recommend | would buy again
    | would always choose | fell in love with | kept | look forward to | am delighted with
    | can never get enough of | trust | cannot fault | am proud of | was charmed by | am grateful for
    | do not regret""",
)

PEOPLE = phrases(
    """I | we | my wife and I | my friends and I | both of us | all of us | you will find that I
    | everyone I know and I | once more I | honestly, I"""
)

ORDERS = pair(
    """don't waste your money | don't bother | save your money | avoid it | do not buy it | don't go there
    | stay away | look elsewhere | think twice before you buy it | skip it | run | do not believe the advert
    | steer clear | forget it | keep your money""",
    """don't miss it | don't hesitate | treat yourself | try it | do buy it | go there | come early and stay late
    | look no further | buy two | read it | do not listen to the bad reviews | get one | book it now
    | see it twice | tell your friends""",
)

ACTIONS = phrases(
    """works | runs | cleans | sounds | fits | reads | tastes | handles | drives | sings | acts | performs
    | cooks | writes | plays | sleeps | moves | starts | cuts | explains | ages | moves along | was made
    | was put together | was handled | treated us | behaved | ended"""
)
