"""The word lists from which the town is made: names, streets, wares, hours, trades."""

from __future__ import annotations


def _phrases(text: str) -> tuple[str, ...]:
    """The phrases of a list separated by commas."""
    return tuple(text.split(", "))


TOWN = "Tallowmere"
WEEKDAYS = _phrases("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _phrases("January, February, March, April, May, June, July, August, September, October, November, December")
SHOP_FIRST = _phrases(
    "Copper, Silver, Golden, Iron, Wooden, Crooked, Merry, Quiet, Lucky, Humble, Jolly, Sleepy, Brave, Gentle, Proud, Little, Blue, "
    "Red, Green, White, Black, Yellow, Crimson, Purple, Dancing, Laughing, Singing, Wandering, Hidden, Painted, Striped, Dusty"
)
SHOP_LAST = _phrases(
    "Heron, Otter, Badger, Falcon, Sparrow, Raven, Hare, Fox, Stag, Swan, Robin, Beaver, Dolphin, Lobster, Turtle, Pony, Rooster, "
    "Donkey, Hound, Kitten, Goose, Magpie, Owl, Pigeon, Salmon, Whale, Seal, Crab, Bee, Beetle, Moth, Squirrel, Hedgehog, Lamb, Ram, "
    "Bull, Kettle, Thimble, Button, Candle, Barrel, Basket, Bell, Bottle, Bucket, Compass, Crown, Cup, Drum, Feather, Fiddle, Flute, "
    "Hammer, Harp, Hat, Key, Ladder, Ladle, Mirror, Needle, Oar, Pillow, Pipe, Plough, Pocket, Quill, Ribbon, Saddle, Shield, Spoon, "
    "Table, Trumpet, Violin, Wagon, Wheel, Whistle, Window, Acorn, Apple, Cherry, Clover, Daisy, Fern, Hazel, Iris, Ivy, Lily, Maple, "
    "Olive, Onion, Orchid, Pear, Poppy, Plum, Rose, Thistle, Tulip, Turnip, Violet, Walnut, Willow, Moon, Star, Comet, Cloud, "
    "Rainbow, Pebble, Meadow, Mountain, River, Valley, Snowflake, Baker, Miller, Piper, Shepherd, Sailor, Dragon, Giant, Mermaid, "
    "Unicorn, Knight, Queen"
)
SHIP_FIRST = _phrases(
    "Northern, Southern, Eastern, Western, Distant, Faithful, Happy, Noble, Bold, Bright, Swift, Steady, Royal, Silent, Loyal, Early"
)
SHIP_LAST = _phrases(
    "Promise, Venture, Fortune, Courage, Patience, Liberty, Harmony, Journey, Victory, Hope, Mercy, Glory, Honour, Wisdom, Comfort, "
    "Dream, Echo, Wonder, Adventure, Blessing, Discovery, Friendship, Harvest, Homecoming, Lullaby, Melody, Miracle, Morning, "
    "Daybreak, Sunrise, Twilight, Midnight, Tempest, Breeze, Horizon, Legend, Memory, Whisper, Reward, Pilgrim, Traveller, Welcome, "
    "Surprise, Secret, Summer, Winter, Answer, Letter"
)
FIRST_NAMES = _phrases(
    "Ada, Alma, Anton, Basil, Bruno, Cara, Cecil, Clara, Cora, Daniel, Dora, Edgar, Edith, Ella, Emil, Esther, Felix, Flora, Frida, "
    "George, Greta, Hanna, Harold, Helen, Hugo, Ida, Ivan, Jacob, Jonas, Julia, Karl, Klara, Laura, Leo, Lina, Lotte, Louis, Lucas, "
    "Mabel, Marta, Martin, Milo, Mina, Nina, Nora, Oscar, Otto, Paula, Peter, Rita, Robert, Rosa, Ruth, Samuel, Simon, Sofia, Stella, "
    "Thomas, Tilda, Tobias, Vera, Victor, Wanda, Walter"
)
SURNAMES = _phrases(
    "Amber, Arden, Ashby, Barlow, Bellows, Birch, Bramble, Brook, Burrow, Carver, Chandler, Cobble, Cooper, Crane, Croft, Dale, "
    "Dunmore, Elder, Fairway, Fennel, Ferry, Finch, Fletcher, Frost, Gale, Garland, Glover, Granger, Greenway, Hale, Harbour, "
    "Hargrove, Hawthorn, Heath, Hollow, Holly, Kestrel, Lark, Linden, Lock, Marsh, Mason, Mercer, Moss, Nettle, Oakley, Orchard, "
    "Parsley, Penrose, Pickering, Potter, Quince, Reed, Rowan, Sadler, Sage, Shore, Sorrel, Stone, Tanner, Teasel, Thatcher, Thorn, "
    "Tiller, Turner, Underhill, Wainwright, Waters, Weaver, Wheeler, Wick, Woodward"
)
STREETS = _phrases(
    "Lantern Street, Fish Lane, Harbour Road, Rope Walk, Market Square, Chapel Street, Mill Lane, Bridge Street, Cooper Row, "
    "Lighthouse Road, Garden Lane, Salt Street, Orchard Road, Tower Hill, Bell Court, Sailor Row"
)
WARES = _phrases(
    "honey cakes, wool socks, tin lanterns, straw hats, apple pies, clay pots, garden tools, paper kites, leather boots, silk "
    "scarves, smoked fish, wooden toys, brass clocks, linen shirts, pocket maps, glass beads, fresh bread, goat cheese, fishing nets, "
    "rain coats, sea charts, pepper biscuits, winter gloves, cherry jam, tea cups, feather pillows, garden seeds, copper pans, reed "
    "baskets, wax candles, story books, ink bottles"
)
HOURS = _phrases(
    "six o'clock, half past six, seven o'clock, half past seven, eight o'clock, half past eight, nine o'clock, half past nine, ten "
    "o'clock, half past ten"
)
BERTHS = _phrases(
    "North Quay, South Quay, Old Pier, New Pier, Customs Wharf, Anchor Wharf, Gull Landing, Stone Landing, Fisher Dock, Timber Dock, "
    "Ferry Steps, Beacon Steps"
)
CARGOES = _phrases(
    "timber, salt, olive oil, barley, coal, wool, marble, spices, sugar, cotton, red wine, dried figs, iron bars, roof tiles, tea, "
    "paper, cork, lemons, rice, tar"
)
COMPANY_FIRST = _phrases(
    "Aldermoor, Brenholt, Castorwick, Dunmarsh, Elverby, Fenwold, Garrowby, Hollinmere, Istermouth, Jessanby, Kelderbrook, Lorrimoor, "
    "Marrowfold, Netherwick, Orsenby, Pellmoor, Quillanby, Rosterwick, Stannermouth, Tarrowby, Umberfold, Vannerby, Wexholt, "
    "Yarrowmouth, Zellerby, Ambleholt, Borrowmere, Corvenby, Dorrimouth, Estermoor, Farrowick, Gildenby, Harrowfold, Ingermere, "
    "Kestermoor, Lindermouth"
)
TRADES = _phrases("Rope, Sail, Timber, Salt, Wool, Glass, Paper, Ferry, Lamp, Tea, Coal, Grain")
GOODS = _phrases(
    "pear, brush, lamp, kettle, basket, candle, spoon, rope, hat, scarf, book, plate, jug, bell, pie, cheese, loaf, melon, cup, "
    "mirror, clock, map, knife, needle, ribbon, blanket, pillow, chair, hammer, bucket, broom, kite, drum, flute, lock, ladder, "
    "bottle, jar, cake, fish"
)
"""Things sold over the counter; all take the article "a"."""
