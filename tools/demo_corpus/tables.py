"""The words and little facts that the demo asks about."""

from __future__ import annotations

OPPOSITES = {
    "en": {
        "hot": "cold", "big": "small", "fast": "slow", "happy": "sad", "light": "dark", "early": "late",
        "rich": "poor", "hard": "soft", "full": "empty", "high": "low", "young": "old", "clean": "dirty",
        "strong": "weak", "open": "closed", "loud": "quiet", "wet": "dry", "thick": "thin", "wide": "narrow",
        "near": "far", "true": "false", "first": "last", "up": "down", "left": "right", "day": "night",
        "begin": "end", "push": "pull", "buy": "sell", "win": "lose", "love": "hate", "brave": "afraid",
        "long": "short", "deep": "shallow", "cheap": "expensive", "safe": "dangerous", "sweet": "bitter",
    },
    "zh": {
        "热": "冷", "大": "小", "快": "慢", "高": "矮", "长": "短", "多": "少", "黑": "白", "早": "晚",
        "新": "旧", "远": "近", "胖": "瘦", "深": "浅", "轻": "重", "左": "右", "上": "下", "前": "后",
        "里": "外", "男": "女", "买": "卖", "开": "关", "哭": "笑", "进": "退", "软": "硬", "干": "湿",
        "富有": "贫穷", "勇敢": "胆小", "成功": "失败", "安全": "危险", "简单": "复杂", "开始": "结束",
        "喜欢": "讨厌", "认真": "马虎", "聪明": "愚笨", "热闹": "冷清", "仔细": "粗心",
    },
}  # fmt: skip

ENGLISH_TO_CHINESE = {
    "apple": "苹果", "water": "水", "tea": "茶", "book": "书", "dog": "狗", "cat": "猫", "bird": "鸟", "fish": "鱼",
    "horse": "马", "tree": "树", "flower": "花", "mountain": "山", "river": "河", "sun": "太阳", "moon": "月亮",
    "rain": "雨", "snow": "雪", "wind": "风", "fire": "火", "hand": "手", "door": "门", "car": "汽车", "rice": "米饭",
    "bread": "面包", "milk": "牛奶", "school": "学校", "teacher": "老师", "friend": "朋友", "music": "音乐",
    "paper": "纸",
}  # fmt: skip

Lookup = tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]
"""Wordings, statements, and the answer for each word."""

_CAPITALS_EN: Lookup = (
    (
        "What is the capital of {word}?",
        "Which city is the capital of {word}?",
        "Please name the capital of {word}.",
        "Do you know the capital of {word}?",
        "I am going to {word}. What is its capital?",
    ),
    ("The capital of {word} is {answer}", "The capital city of {word} is called {answer}"),
    {
        "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "China": "Beijing",
        "Japan": "Tokyo", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna",
        "Poland": "Warsaw", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo",
        "Sweden": "Stockholm", "Ireland": "Dublin", "Portugal": "Lisbon", "Canada": "Ottawa", "Thailand": "Bangkok",
    },
)  # fmt: skip

_COLOURS_EN: Lookup = (
    (
        "What colour is {word}?",
        "Which colour does {word} have?",
        "Please tell me the colour of {word}.",
        "I want to paint {word}. Which colour do I need?",
    ),
    ("The usual colour of {word} is {answer}", "People see {word} as {answer}"),
    {
        "fresh grass": "green", "clean snow": "white", "a ripe banana": "yellow", "coal": "black",
        "the clear sky": "blue", "blood": "red", "a carrot": "orange", "chocolate": "brown", "a lemon": "yellow",
        "milk": "white",
    },
)  # fmt: skip

_YOUNG_EN: Lookup = (
    (
        "What is a young {word} called?",
        "What do people call the baby of a {word}?",
        "Please name the young of a {word}.",
        "Which word means a young {word}?",
    ),
    ("A young {word} is called a {answer}", "The young of a {word} is a {answer}"),
    {
        "dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "hen": "chick",
        "duck": "duckling", "goose": "gosling", "bear": "cub", "frog": "tadpole",
    },
)  # fmt: skip

_COUNTS_EN: Lookup = (
    (
        "How many {word}?",
        "Please tell me how many {word}.",
        "Count for me: how many {word}?",
        "I wonder how many {word}. Do you know?",
    ),
    ("If you ask how many {word}, the number is {answer}",),
    {
        "legs a spider has": "8", "legs an insect has": "6", "legs a dog has": "4", "sides a triangle has": "3",
        "sides a square has": "4", "sides a hexagon has": "6", "days a week has": "7", "months a year has": "12",
        "hours a day has": "24", "fingers a hand has": "5", "wheels a bicycle has": "2",
        "letters the alphabet has": "26",
    },
)  # fmt: skip

_CAPITALS_ZH: Lookup = (
    (
        "请问{word}的首都是哪里？",
        "哪座城市是{word}的首都？",
        "说出{word}的首都。",
        "你知道{word}的首都在哪里吗？",
        "我要去{word}，那里的首都是哪儿？",
    ),
    ("{word}的首都是{answer}", "{word}的首都叫{answer}"),
    {
        "中国": "北京", "法国": "巴黎", "意大利": "罗马", "西班牙": "马德里", "德国": "柏林", "日本": "东京",
        "俄罗斯": "莫斯科", "埃及": "开罗", "希腊": "雅典", "奥地利": "维也纳", "波兰": "华沙", "古巴": "哈瓦那",
        "秘鲁": "利马", "肯尼亚": "内罗毕", "挪威": "奥斯陆", "韩国": "首尔", "泰国": "曼谷", "英国": "伦敦",
    },
)  # fmt: skip

_COLOURS_ZH: Lookup = (
    ("请问{word}是什么颜色？", "{word}的颜色是什么？", "说出{word}的颜色。", "我想画{word}，该用什么颜色？"),
    ("{word}的颜色是{answer}", "一般来说，{word}是{answer}"),
    {
        "青草": "绿色", "白雪": "白色", "熟香蕉": "黄色", "煤炭": "黑色", "晴朗的天空": "蓝色", "血液": "红色",
        "胡萝卜": "橙色", "巧克力": "棕色", "柠檬": "黄色", "牛奶": "白色",
    },
)  # fmt: skip

_MEASURE_WORDS_ZH: Lookup = (
    (
        "请问“一（ ）{word}”里填什么量词？",
        "数{word}用哪个量词？",
        "说出{word}的量词。",
        "告诉我{word}该用什么量词。",
    ),
    ("{word}的量词是“{answer}”", "数{word}的时候用“{answer}”"),
    {
        "马": "匹", "牛": "头", "鱼": "条", "书": "本", "树": "棵", "花": "朵", "汽车": "辆", "飞机": "架",
        "衣服": "件", "纸": "张", "猫": "只", "桥": "座",
    },
)  # fmt: skip

_COUNTS_ZH: Lookup = (
    ("请问{word}？", "你知道{word}吗？", "告诉我{word}。", "我想知道{word}。"),
    ("要问{word}，答案是{answer}",),
    {
        "蜘蛛有几条腿": "8", "昆虫有几条腿": "6", "狗有几条腿": "4", "三角形有几条边": "3", "正方形有几条边": "4",
        "六边形有几条边": "6", "一周有几天": "7", "一年有几个月": "12", "一天有几个小时": "24",
        "一只手有几根手指": "5", "自行车有几个轮子": "2", "一个季度有几个月": "3",
    },
)  # fmt: skip

LITTLE_FACTS: dict[str, tuple[Lookup, ...]] = {
    "en": (_CAPITALS_EN, _COLOURS_EN, _YOUNG_EN, _COUNTS_EN),
    "zh": (_CAPITALS_ZH, _COLOURS_ZH, _MEASURE_WORDS_ZH, _COUNTS_ZH),
}
