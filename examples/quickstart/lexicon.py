"""Words and phrases that `grammar.py` puts together, by subject and by polarity. Written for this project.

Each entry is `(negative, positive)`: index 0 is the label NEGATIVE, index 1 is POSITIVE. Phrases are separated by `|`.
Adjectives complete "the <noun> is ..."; events complete "the <noun> ...", in any tense, with a singular noun.
"""

from __future__ import annotations

Pair = tuple[list[str], list[str]]


def phrases(text: str) -> list[str]:
    """The `|`-separated phrases of `text`, white space collapsed."""
    return [" ".join(part.split()) for part in text.split("|") if part.strip()]


def pair(negative: str, positive: str) -> Pair:
    """The phrases of each polarity, indexed by label."""
    return phrases(negative), phrases(positive)


NOUNS: dict[str, list[str]] = {
    "device": phrases(
        """phone | laptop | printer | kettle | toaster | vacuum cleaner | camera | speaker | headset | watch
        | blender | heater | fan | lamp | drill | remote control | charger | keyboard | fridge | washing machine
        | coffee machine | torch | television | projector | bike | car | lawn mower | app | software | website
        | game | new version | update | router | gadget | scooter | oven | tablet | monitor"""
    ),
    "goods": phrases(
        """coat | jacket | dress | shirt | tent | backpack | pillow | mattress | blanket | chair | desk | sofa
        | table | stroller | pan | knife | umbrella | suitcase | wallet | toy | cream | shampoo | soap | paint
        | lock | shelf | pair of shoes | pair of boots | pair of glasses | carpet | puzzle | bed | bag | sweater
        | fabric | furniture | tool | box | bottle | brush | bin | product"""
    ),
    "work": phrases(
        """film | movie | book | novel | play | series | show | album | concert | documentary | musical | comedy
        | thriller | story | sequel | script | drama | mystery | remake | plot | first chapter | ending
        | second half | romance | exhibition | author's new book | translation | cartoon | performance | song
        | opening | picture | biography | lecture | festival"""
    ),
    "place": phrases(
        """hotel | restaurant | hostel | museum | gym | bakery | garden | camp site | clinic | garage | shop
        | theatre | cinema | bank | airline | room | bathroom | service | pool | cafe | bar | beach house | spa
        | zoo | company | school | tour | course | trip | flight | train | ferry | customer service
        | support team | delivery | stay | bus | salon | evening | holiday"""
    ),
    "person": phrases(
        """waiter | nurse | doctor | dentist | guide | teacher | plumber | driver | lawyer | mechanic | chef
        | salesman | agent | manager | seller | hairdresser | electrician | landlord | receptionist | director
        | actor | actress | author | singer | cleaner | crew | staff | owner | technician | coach | host
        | man at the desk | woman at the counter | optician | builder | team"""
    ),
    "food": phrases(
        """soup | steak | pasta | curry | fish | bread | cake | coffee | wine | salad | sauce | breakfast
        | dessert | pizza | meal | menu | chicken | burger | rice | tea | ice cream | cheese | lunch | dinner
        | noodle dish | pie | sandwich | butter | fruit | dish"""
    ),
}

ADJECTIVES: dict[str, Pair] = {
    "any": pair(
        """bad | terrible | awful | horrible | dreadful | poor | useless | worthless | disappointing | mediocre
        | a disaster | a mess | a nightmare | a waste of money | a waste of time | a joke | overpriced
        | a rip-off | a shame | ugly | annoying | appalling | pathetic | a letdown | inferior | below average
        | unacceptable | a failure | a big mistake | the worst | third rate | lousy | a disgrace | frustrating
        | nothing special | far too expensive | a huge disappointment | rubbish | unpleasant | miserable""",
        """good | great | excellent | wonderful | fantastic | amazing | superb | brilliant | outstanding
        | perfect | lovely | a delight | a pleasure | a joy | worth every cent | worth the money | a bargain
        | a gem | a treasure | a success | beautiful | charming | impressive | first rate | flawless | the best
        | stunning | splendid | marvellous | remarkable | terrific | delightful | magical | a triumph
        | satisfying | a lifesaver | very special | fairly priced | a wonderful surprise | enjoyable | pleasant
        | gorgeous""",
    ),
    "device": pair(
        """slow | noisy | flimsy | faulty | broken | clumsy | unreliable | too heavy | badly made | fragile | dim
        | weak | confusing | outdated | buggy | loud | defective | impossible to use | full of bugs | dangerous
        | cheap and plasticky | sluggish | blurred | dead | awkward | out of order | hard to clean
        | badly designed | hot to the touch | dark""",
        """fast | quiet | sturdy | reliable | solid | handy | powerful | light | well made | easy to use | bright
        | sharp | intuitive | modern | accurate | elegant | practical | simple to set up | silent | efficient
        | smooth | quick | durable | clever | responsive | compact | clear | easy to clean | well designed
        | comfortable to hold | easy to repair""",
    ),
    "goods": pair(
        """flimsy | scratchy | uncomfortable | too small | badly sewn | cheap looking | thin | itchy | lumpy
        | crooked | torn | stained | greasy | smelly | shabby | wobbly | stiff | faded | rusty | badly made
        | sticky | the wrong size | ripped | unwearable | incomplete | broken | scratched | rough | loose
        | full of holes""",
        """comfortable | soft | warm | sturdy | elegant | durable | cosy | stylish | well made | light
        | waterproof | practical | smart | beautifully made | roomy | gentle on the skin | easy to assemble
        | handy | strong | the right size | well sewn | smooth | easy to fold | solid | neat | colourful
        | of top quality | like new after years | well cut | pretty""",
    ),
    "work": pair(
        """boring | dull | tedious | predictable | shallow | confusing | pointless | wooden | forced | slow
        | forgettable | lifeless | clumsy | pretentious | silly | unfunny | flat | dreary | lazy | far too long
        | badly written | badly acted | cliched | stupid | noisy | an insult | a bore | unconvincing
        | implausible | painful | empty | repetitive | badly directed | soulless | rushed | shouty""",
        """moving | gripping | funny | hilarious | clever | touching | witty | thrilling | fascinating
        | inspiring | refreshing | powerful | exciting | heartwarming | smart | tender | original | imaginative
        | a masterpiece | breathtaking | full of heart | well written | superbly acted | beautifully filmed
        | thoughtful | unforgettable | entertaining | absorbing | honest | warm | suspenseful | addictive
        | catchy | poetic | rich | memorable""",
    ),
    "place": pair(
        """dirty | filthy | noisy | cramped | crowded | shabby | mouldy | chaotic | badly run | smelly | slow
        | cold | disorganised | gloomy | run down | unfriendly | unhelpful | late | unsafe | depressing | closed
        | a tourist trap | damp | stuffy | overcrowded | badly organised | unprofessional | unreliable | muddy
        | rude""",
        """clean | spotless | quiet | peaceful | bright | cosy | welcoming | friendly | well run | relaxing
        | comfortable | fast | helpful | well organised | professional | punctual | reliable | spacious | on time
        | safe | calm | well equipped | like a second home | easy to find | a hidden gem | warm | elegant
        | romantic | efficient | smooth""",
    ),
    "person": pair(
        """rude | impatient | unfriendly | arrogant | careless | lazy | incompetent | dishonest | unhelpful
        | bored | pushy | late | clueless | unprofessional | grumpy | cold | aggressive | clumsy | mean | greedy
        | sloppy | indifferent | hopeless | annoyed | condescending | miscast | stiff | out of his depth | rough
        | impossible to reach""",
        """friendly | kind | patient | helpful | polite | honest | professional | attentive | cheerful | caring
        | generous | skilled | gentle | warm | knowledgeable | thorough | punctual | charming | welcoming | funny
        | considerate | competent | talented | fair | encouraging | magnetic | quick and tidy | sincere | sharp
        | at the top of his game""",
    ),
    "food": pair(
        """bland | cold | stale | dry | soggy | greasy | burnt | raw | tasteless | overcooked | salty | rancid
        | watery | bitter | tough | sour | inedible | undercooked | disgusting | rubbery | lukewarm | oily
        | mushy | rotten | tiny | weak | too sweet | overpriced""",
        """delicious | fresh | tasty | hot | juicy | tender | crisp | creamy | full of flavour | perfectly cooked
        | generous | rich | divine | mouthwatering | home made | well seasoned | spicy | excellent value
        | fragrant | light and fluffy | heavenly | flavourful | crunchy | sweet | satisfying | perfectly balanced
        | creative | to die for""",
    ),
}

EVENTS: dict[str, Pair] = {
    "device": pair(
        """broke after a week | stopped working after two days | died in the first month | never worked
        | does not even turn on | gets far too hot | makes a terrible noise | keeps losing the connection
        | freezes all the time | crashes whenever I open it | lost all my data | burned my hand
        | smells of burnt plastic | leaks water everywhere | needs to be repaired again and again
        | rattles and shakes | has a screen full of scratches | has a battery that is empty within an hour
        | drains the battery | switches itself off | cost a fortune and does nothing | is slower than my old one
        | came without a manual | fell to pieces | claims to be quiet and roars | refuses to start
        | ruined my morning | jams every time | deleted my files | has buttons that stick | loses power
        | costs more than it is worth | begs for money | hurts my ears | takes forever to load | squeaks
        | overheats | will not connect to anything | failed on the first trip | asks for a password every minute
        | is already broken again""",
        """works like a charm | still works after many years | does exactly what it should
        | runs all day on one charge | starts in a second | was ready to use in minutes | saved me a lot of time
        | has never failed me | takes beautiful pictures | has a bright clear screen | has wonderful sound
        | makes life so much easier | is faster than my old one | charges in no time | hardly makes a sound
        | survived a fall without a scratch | keeps its promises | is easy to understand, even for beginners
        | pays for itself | handles everything with ease | feels solid in the hand | connected at once
        | looks great on the desk | never lets me down | fixed the problem | uses very little power
        | fits in my pocket | does the job perfectly | runs smoothly | stays cool | lasts for days
        | gets better with every version | made my work a pleasure | was simple to install
        | puts bigger ones to shame | gives a pleasant light | cleans brilliantly | keeps going and going
        | has every feature I need | boils water fast""",
    ),
    "goods": pair(
        """fell apart after one wash | tore on the first day | arrived broken | came in the wrong size
        | lost its colour | smells of chemicals | gave me a rash | shrank in the wash
        | looks nothing like the photo | let the rain in | scratched the floor | had holes in it
        | collapsed under me | wobbles | hurts my back | gave me blisters | has a zip that sticks
        | had missing parts | was full of stains | ripped | rusted within a month | sagged | peeled
        | is smaller than described | leaves black marks | fell to pieces | snapped | stinks | came unstitched
        | would not close | dried out my skin | was damaged in the post | cracked | faded | makes my skin itch
        | is too short and too tight | went straight into the bin | is a torture to sit on
        | was soaked and ruined""",
        """fits perfectly | feels soft on the skin | keeps me warm and dry | looks exactly like the photo
        | still looks new after many washes | holds everything I need | went up in minutes
        | was easy to put together | smells lovely | makes my skin feel better | is stronger than it looks
        | gets compliments every day | cured my back pain | stays sharp | is a pleasure to wear
        | looks far more expensive than it was | arrived well wrapped and in perfect shape | kept the rain out
        | folds away in seconds | suits every room | lasted for years | has neat strong seams | keeps its shape
        | glides | made my daughter happy | survived a storm | is worth twice the price | made the perfect gift
        | helps me sleep better | keeps my feet dry | is loved by the children | covers well and dries fast
        | makes my hair shine | never slips | has a lovely colour | works wonders""",
    ),
    "work": pair(
        """made me fall asleep | goes nowhere | makes no sense | drags on and on | runs out of ideas
        | bored the whole family | left me cold | wastes a good cast | insults the audience
        | has no story to speak of | is full of mistakes | lost me after ten minutes | made me leave early
        | has flat characters and weak jokes | never gets going | falls apart in the end | repeats itself
        | ruins a good idea | left me with a headache | adds nothing new | tries hard and fails
        | feels like a long advert | was a torture to sit through | made me look at my watch
        | has painful dialogue | made everybody yawn | is all noise and no heart | takes itself too seriously
        | mistakes noise for excitement | collapses under its own budget | has a terrible script
        | made me want my money back | cheats its audience | has actors who mumble | should never have been made
        | is full of clumsy jokes""",
        """kept me on the edge of my seat | made me laugh out loud | moved me to tears | stayed with me for weeks
        | is full of life and wit | had me hooked from the start | has a wonderful cast
        | tells its story with love | made the whole family laugh | surprised me | has a brilliant ending
        | deserves every prize it won | is a feast for the eyes | never gets boring | kept me guessing
        | made me smile | has music that I still hum | flies by | brings the past to life
        | has characters that feel real | won me over | made me think | gets better every time I see it
        | improves on the first one | has sparkling dialogue | rewards your patience
        | is impossible to stop reading | touched my heart | was over far too soon | deserves a big audience
        | made me forget the time | has superb acting | warmed my heart | has jokes that land
        | captured my imagination""",
    ),
    "place": pair(
        """kept us waiting for an hour | lost our booking | smelled of smoke | charged us twice
        | never answered my calls | refused to give us a refund | ruined our holiday
        | cancelled at the last minute | ignored my complaint | made us feel unwelcome | had stains on the walls
        | was full of flies | had no hot water | treated us badly | arrived three hours late | lied to us
        | kept our money | has become worse every year | lost my suitcase | blamed me for everything
        | hung up on me | was nothing but noise | closed without a word | sent the wrong item twice
        | kept me on hold | let me down again | forgot our order | had thin walls and hard beds | overcharged us
        | promised a lot and did nothing | wasted our day | took my money and disappeared
        | made me wait for weeks | got everything wrong | was a rushed affair | never apologised
        | had dirty sheets | broke its promises""",
        """made us feel at home | has a stunning view | went out of its way to help | answered within minutes
        | gave us a free drink | has the best beds in the world | made our holiday unforgettable
        | solved my problem at once | was a real highlight | gave me my money back without a question
        | arrived early | went smoothly | took great care of us | exceeded my expectations
        | has wonderful gardens and bright rooms | treated us like royalty | was worth the long drive
        | offers great value | made our wedding day special | keeps getting better | replaced it for free
        | gave us a warm welcome | was a dream | never disappoints | thinks of everything | taught me a lot
        | gave me new confidence | was the perfect place to relax | kept its word | sent a new one overnight
        | fixed everything in a day | made the children happy | was finished ahead of time
        | is always worth a visit | upgraded us for free | was perfectly organised | apologised and made it right
        | was quick and easy""",
    ),
    "person": pair(
        """ignored us | shouted at me | forgot our order | did not listen | shrugged and walked away
        | made it worse | rolled his eyes | lied about the price | never called back | sent me away | hurt me
        | laughed at my question | wasted my time | left a mess behind | charged too much | had no idea
        | came late and left early | could not care less | blamed me | cheated us | insulted my wife
        | did a sloppy job | kept looking at the clock | broke my sink | argued with every guest | mumbled
        | gave us wrong information | refused to help | could not answer one simple question | read from a sheet
        | treated us as if we were stupid | never said sorry | ran off with the deposit
        | was only interested in money | could not be bothered""",
        """took time for us | listened carefully | remembered our names | explained everything clearly
        | went the extra mile | greeted us with a smile | fixed it in no time | charged less than expected
        | made us laugh | helped us with our bags | answered all my questions | gave us great advice
        | was a joy to talk to | found the perfect solution | made me feel safe
        | worked hard and left everything clean | took my fears seriously | stayed late to help
        | did a wonderful job | solved the problem | knew everything about the town
        | made even the dull parts fun | carried the whole play | treated my mother with great kindness
        | came on a holiday to help us | saved the day | gave us more than we asked for | made sure we were happy
        | kept every promise | calmed my son | shines in every scene | delivered a superb job | looked after us
        | understood what we wanted""",
    ),
    "food": pair(
        """came late and cold | made me sick | tasted of nothing | tasted like cardboard | had a hair in it
        | was swimming in fat | was sent back twice | cost far too much | left us hungry | came out of a tin
        | was burnt black | smelled bad | had gone off | came without the sauce | was too salty to eat
        | was as hard as a stone | ruined the evening | upset my stomach | was raw in the middle | had no flavour
        | went into the bin | looked like dog food | tasted of soap | was old and dry""",
        """melted on the tongue | was cooked to perfection | tasted like home | came quickly and hot
        | was full of fresh herbs | was the best I ever had | made us order a second plate
        | looked like a painting | was worth the trip | was a big hit | left us full and happy
        | came in generous portions | had just the right amount of spice | smelled wonderful | made my day
        | is made fresh every morning | was rich and full of flavour | disappeared in seconds
        | made the evening perfect | was simply heavenly | kept us coming back | tasted even better the next day
        | was a feast | delighted everyone""",
    ),
}

VERBS: dict[str, Pair] = {
    "device": pair(
        "crash | break | fail | leak | jam | freeze | squeak | overheat | rattle | disappoint | let you down",
        "work | start | charge | connect | help | do its job | last | turn on | fit | respond | impress",
    ),
    "goods": pair(
        "tear | break | leak | fade | wobble | slip | scratch | rust | smell | disappoint | dig into your shoulders | rip",
        "fit | last | close | hold together | keep you warm | stay dry | help | look good | keep its shape | suit me",
    ),
    "work": pair(
        "drag | bore me | disappoint | lose its way | repeat itself"
        " | feel false | get boring | preach | lose its magic | talk down to us",
        "make me laugh | convince | hold my attention | surprise me | make sense"
        " | entertain | move me | thrill | work | get better",
    ),
    "place": pair(
        "disappoint | let us down | cheat | keep you waiting | forget a booking | make mistakes | overcharge",
        "answer | help | care | apologise | deliver | keep its promises | impress | satisfy | reply | open on time",
    ),
    "person": pair(
        "complain | rush us | let us down | cheat"
        " | make a mistake | push us to buy | lose patience | disappoint | make me feel foolish",
        "listen | help | care | smile | apologise"
        " | answer | show up | call back | know the subject | look at me | understand",
    ),
    "food": pair(
        "disappoint | upset my stomach | taste old", "taste fresh | satisfy | arrive | taste of anything | impress"
    ),
}

PLURALS: Pair = pair(
    """bugs | problems | stains | faults | scratches | delays | complaints | mistakes | hidden costs
    | nasty surprises | regrets | dull moments | gimmicks | tangled wires | weak spots | queues
    | annoying adverts | flaws""",
    """laughs | surprises | good ideas | flavour | charm | help | comfort | warmth | apology | explanation
    | magic | refund | wit | chemistry between the actors | taste | reply | talent | sense | respect""",
)
