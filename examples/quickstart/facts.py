"""Plain facts that please or annoy without any word of praise or blame; further events of `subject.py`.

The pair is indexed by label: 0 NEGATIVE, 1 POSITIVE. Each completes "the <noun> ...".
"""

from __future__ import annotations

from lexicon import pair

FACTS = pair(
    """jammed | dripped on the carpet | leaked | cracked | bent | burst | exploded | melted | rusted | tore | shrank | faded
    | peeled off | came loose | fell off the wall | got stuck | would not open | would not close | will not stay in place
    | loses air | loses water | loses its charge | spills everywhere | blocks the door | wakes the neighbours | bites
    | stopped after one day | arrived weeks late | arrived with a crack | arrived empty | was already open
    | was missing two pieces | was missing half of the parts | was nothing like the picture | was stolen goods
    | was out of date | was sold out again | was closed when we came | was cut short | was called off | was half asleep
    | cost twice as much as agreed | cost more than the trip | cost us our deposit | took four hours | took three months
    | takes all day to start | needs new batteries every day | needs a bigger engine | needs a good clean
    | kept falling over | kept beeping all night | kept changing the price | kept us in the dark | forgot my name
    | forgot the appointment | spoke to the wall | talked only about money | yelled at the children | pushed in front of us
    | hid the bill | added a secret fee | doubled the price | raised the price without a word | sold my address
    | sent me spam | sent the wrong colour | sent an empty box | gave us the wrong key | gave me a headache | gave me a cough
    | left a stain | left a hole | left me in tears of anger | left us standing in the cold | left the door open
    | went up in smoke | went black | went missing | went bankrupt | put the baby in danger | put everybody to sleep
    | turned green | turned my hair orange | turned out to be plastic | made my eyes burn | made my feet bleed
    | made us miss the train | hurt my knee | cut my finger | drowned | froze | blew a fuse | blew over | caught fire
    | had mice | had no towels | had no light | had no seats left | had bugs | had mould | had a bone in it | had a leak
    | has no idea what it wants | has seen better days | has gone downhill | has lost its shine | has been sick for weeks
    | could be heard three streets away | can hardly be used | hardly moves | hardly works | barely heats | barely fits
    | never came | never arrived | never replied | never opened on time | never apologised | never got better""",
    """opened at once | stays shut | holds tight | held in the storm | stands firm | never moved | never spilled a drop
    | never needed a repair | never lost a part | never ran dry | never broke | never complained | never kept us waiting
    | arrived before noon | arrived the next day | arrived without a scratch | arrived with a handwritten note
    | came with spare parts | came with a free bag | came early | came straight away | came back with the right one
    | came at midnight to help | cost half as much as elsewhere | cost less than agreed | cost us nothing at all
    | took only an hour | takes no space | takes one minute | takes any weather | needs no cleaning | needs no manual
    | needs one charge a month | kept its colour | kept us dry | kept the children busy for hours | kept me company
    | kept the price down | remembered my name | remembered what we like | waited for us | held the door for us
    | carried our bags | drove us home | called the next day to ask | called back within the hour | found my lost keys
    | found a table for ten | found the fault in a minute | gave us the best table | gave me back my sleep
    | gave the children balloons | gave us an extra night | gave me hope | left the kitchen clean | left me speechless
    | left me wanting more | left the audience cheering | left with a smile | went like clockwork | went down a storm
    | won every prize | won my heart | put us at ease | put my fears to rest | put a smile on my face
    | turned our garden green | turned a dull day into a party | turned out to be solid oak | made my eyes shine
    | made my knees stop hurting | made us forget the rain | made the long drive short | helped my back | healed my skin
    | cuts like a razor | cuts the bill in half | runs and runs | runs without a sound | still runs after ten years
    | still fits | still smells fresh | still makes me laugh | still looks as it did on the first day
    | had clean towels and a big bath | had light in every room | had plenty of seats | had the crowd on its feet
    | has no equal | has a heart of gold | has come a long way | has got even better | has been with me for years
    | can be used by a child | can be heard in every corner of the hall | can do anything | dries in minutes
    | heats the whole house | fits any pocket | fits like a second skin | saves me an hour a day | saved the trip
    | saves electricity | beats all the others | beats my old one | outlasts the rest | replied at once | refunded everything
    | apologised for a tiny delay | had us in stitches | took my breath away | stole the show | blew me away""",
)
