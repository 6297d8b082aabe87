"""The words of the pocket tasks."""

from __future__ import annotations


def words(text: str) -> list[str]:
    return text.split()


NAMES = words("""
    Adam Agnes Albert Alma Anna Arthur Beth Bruno Carl Cecil Clara Conrad Daisy David Dora Edgar Edith
    Elena Emil Emma Erik Esther Felix Flora Frank Frida George Greta Hanna Harald Hugo Ida Irene Ivan
    Jacob Jane Jonas Julia Karen Karl Laura Lena Leo Linda Louis Lucy Magnus Maria Martin Maud Max Mira
    Nina Nora Oscar Otto Paul Paula Peter Philip Rita Robert Rosa Ruth Samuel Sara Simon Sofia Stella
    Stefan Thea Thomas Tilda Victor Vera Walter Wanda
""")
TOWNS = words("""
    Athens Bergen Berlin Bern Bonn Boston Bristol Cairo Chester Cork Delhi Derby Dover Dublin Essen
    Florence Geneva Ghent Genoa Hamburg Kiel Kyoto Leeds Leipzig Lima Lisbon London Lyon Madrid Malmo
    Milan Munich Naples Nice Odessa Oslo Oxford Paris Prague Quito Riga Rome Seville Tallinn Tokyo
    Toledo Turin Utrecht Venice Verona Vienna Warsaw York Zurich
""")
JOBS = words("""
    baker banker barber butcher carpenter clerk cook dentist doctor driver farmer fisher gardener guard
    hunter janitor jeweller judge lawyer mason miller miner nurse painter pilot plumber poet porter
    potter printer sailor singer smith soldier tailor teacher waiter weaver writer
""")
THINGS = words("""
    basket bell bicycle book boat bottle bowl box bracelet broom bucket camera candle carpet chair clock
    coat compass cup desk drum flute guitar hammer hat kettle knife ladder lamp map mirror needle piano
    ring rope saddle scarf shovel spoon table tent trumpet umbrella vase violin wallet watch
""")
COLOURS = words("""
    black blue brown green grey orange pink purple red silver white yellow
""")
STUFFS = words("""
    brass copper glass iron leather paper stone wooden
""")
MONTHS = words("""
    January February March April May June July August September October November December
""")
FOODS = words("""
    apples beans bread butter cake carrots cheese cherries eggs fish grapes ham honey lemons melons
    mushrooms noodles nuts olives onions oranges pancakes peaches pears peas plums porridge potatoes
    pudding rice salad sausages soup toast
""")
ASPECTS = words("""
    plot acting music ending pacing dialogue camera humour casting opening script editing soundtrack
    lighting villain story finale title setting narrator
""")
PRAISE = {
    1.0: words("decent good pleasant likeable solid enjoyable nice watchable"),
    1.7: words("great charming clever lovely moving gripping delightful witty"),
    2.6: words("superb brilliant wonderful magnificent stunning perfect flawless masterful"),
    -1.0: words("dull weak bland tired slow forgettable thin clumsy"),
    -1.7: words("bad boring annoying silly messy tedious ugly painful"),
    -2.6: words("awful terrible dreadful horrible unbearable hopeless atrocious abysmal"),
}
